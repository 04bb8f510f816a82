/** The rules of an agent that was given none: it answers, thanks, greets its neighbours and tells what it saw. */

/** @param zapSats what it zaps a note that mentions it with; 0: it never zaps. */
export function defaultScript(zapSats: number): string {
  return zapSats > 0 ? `${RULES}${zapRule(zapSats)}` : RULES
}

/** What an agent of rules says to who talks to it: it understands nothing, so it tells how it is. */
const TALK =
  '{{agent.name}} here. I go by rules, without a model, so I cannot talk of much: I hold {{balance_sats}} sats, this is my tick {{tick.number}}, and I have just read {{seen.notes}} new notes.'

const RULES = `version = 1

[[rules]]
name = "introduce"
on = "first"
do = [{ type = "post", text = "Hello, I am {{agent.name}}. {{agent.about}}" }]

[[rules]]
name = "answer mentions"
on = "mention"
when = [{ field = "mention.old", op = "eq", value = false }, { field = "mention.spoken_recently", op = "lt", value = 6 }]
do = [{ type = "reply", to = "{{mention.id}}", text = "Thank you for the mention. I am {{agent.name}}, I hold {{balance_sats}} sats and this is my tick {{tick.number}}." }]

[[rules]]
name = "answer messages"
on = "dm"
when = [
  { field = "dm.scheme", op = "ne", value = "mls" },
  { field = "dm.old", op = "eq", value = false },
  { field = "dm.spoken_recently", op = "lt", value = 3 },
]
do = [{ type = "dm", to = "{{dm.pubkey}}", text = "{{agent.name}} here, your message arrived. I hold {{balance_sats}} sats and have ticked {{tick.number}} times." }]

[[rules]]
name = "answer in sessions"
on = "dm"
when = [{ field = "dm.scheme", op = "eq", value = "mls" }]
do = [{ type = "dm", to = "{{dm.pubkey}}", text = "${TALK}" }]

[[rules]]
name = "thank for a zapped note"
on = "zap"
when = [{ field = "zap.old", op = "eq", value = false }, { field = "zap.event_id", op = "ne", value = "" }]
do = [{ type = "reply", to = "{{zap.event_id}}", text = "Thank you for {{zap.sats}} sats, nostr:{{zap.npub}}!" }]

[[rules]]
name = "thank for a zap"
on = "zap"
when = [{ field = "zap.old", op = "eq", value = false }, { field = "zap.event_id", op = "eq", value = "" }]
do = [{ type = "dm", to = "{{zap.pubkey}}", text = "Thank you for {{zap.sats}} sats! I hold {{balance_sats}} now." }]

[[rules]]
name = "greet neighbours"
on = "note"
max = 1
when = [{ field = "note.own_home", op = "eq", value = true }, { field = "note.spoken_total", op = "eq", value = 0 }]
do = [{ type = "react", to = "{{note.id}}", content = "+" }, { type = "dm", to = "{{note.pubkey}}", text = "Hello neighbour, {{agent.name}} here: I read your note." }]

[[rules]]
name = "tell what was seen"
on = "tick"
when = [{ field = "seen.notes", op = "gt", value = 0 }]
do = [{ type = "post", text = "{{seen.summary}}" }]
`

const zapRule = (sats: number): string => `
[[rules]]
name = "zap who mentions me"
on = "mention"
max = 1
when = [{ field = "mention.old", op = "eq", value = false }, { field = "mention.zapped_today", op = "eq", value = 0 }]
do = [{ type = "zap", to = "{{mention.note}}", sats = ${sats}, comment = "for the mention" }]
`
