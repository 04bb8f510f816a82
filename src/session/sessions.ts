/** All sessions of one key. */
import { PylonError } from '../base/errors.ts'
import { News } from '../base/news.ts'
import type { Command } from '../store/commands.ts'
import type { Created, CreateOrder, Group, PublishedKeyPackage, Said, SessionMessage, SessionsDeps } from './types.ts'

const notYet = (): never => {
  throw new PylonError('internal', 'Sessions are not built yet.')
}

export class Sessions {
  /** Woken under the id of a group at each new message of it. */
  readonly news: News

  constructor(deps: SessionsDeps) {
    this.news = new News(deps.scope)
  }

  /** Publishes what is missing and listens. */
  start(): void {
    notYet()
  }

  keyPackages(): PublishedKeyPackage[] {
    return notYet()
  }

  rotateKeyPackage(): Promise<void> {
    return notYet()
  }

  /** @throws session_no_key_package, session_key_package_invalid */
  create(_order: CreateOrder): Promise<Created> {
    return notYet()
  }

  groups(): Group[] {
    return notYet()
  }

  group(_id: string): Group | undefined {
    return notYet()
  }

  /** The newest active one with just this peer. */
  groupWith(_peer: string): Group | undefined {
    return notYet()
  }

  /** Once for each key. @throws session_not_found, session_closed */
  send(_groupId: string, _said: Said, _key: string): Promise<SessionMessage> {
    return notYet()
  }

  /** Marks the message handled and says the answer, in one commit; once for each key. Nudges the outbox. @throws session_closed */
  answer(_message: SessionMessage, _said: Said | undefined, _key: string, ..._with: Command<unknown>[]): Promise<void> {
    return notYet()
  }

  messages(_groupId: string, _page: { readonly after?: number; readonly limit: number }): SessionMessage[] {
    return notYet()
  }

  /** Called at least once for each message of others that is not handled, in order, one at a time for each group; also after a restart. */
  onMessage(_handler: (message: SessionMessage) => Promise<void>): void {
    notYet()
  }

  addMember(_groupId: string, _peer: string, _timeoutMs: number): Promise<void> {
    return notYet()
  }

  removeMember(_groupId: string, _peer: string): Promise<void> {
    return notYet()
  }

  rename(_groupId: string, _name: string): Promise<void> {
    return notYet()
  }

  selfUpdate(_groupId: string): Promise<void> {
    return notYet()
  }

  leave(_groupId: string): Promise<void> {
    return notYet()
  }
}
