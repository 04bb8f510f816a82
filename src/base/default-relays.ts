/** Where nodes and agents without any configuration meet others: of the node, of guests, in help and docs. `--relay` and config replace them. */
export const DEFAULT_RELAYS: readonly string[] = ['wss://us-east.nostr.pikachat.org', 'wss://eu.nostr.pikachat.org']
