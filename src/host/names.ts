/** Names for agents that were given none. */

const NAMES =
  `ada alan alma anton ariel aurora basil bea bruno cleo clio cosmo dora echo edith elio emmy ezra fern fia finn flora gaia gus hal hedy
  hugo ida ingo iris isa juno kai kira leo lila linus lola luna mara milo mira nell nico nora odin ola otto pia pip remy rhea rosa ruth sage saul
  selma silas tess theo tilda uma una vera vida wilma wren xena yara zelda zeno zoe`.split(/\s+/)

/** The first name that is not taken, from a start that differs between homes. @param seed any whole number */
export function freshName(taken: ReadonlySet<string>, seed: number): string {
  for (let round = 1; ; round++) {
    for (let i = 0; i < NAMES.length; i++) {
      const name = `${NAMES[(seed + i) % NAMES.length]}${round === 1 ? '' : `-${round}`}`
      if (!taken.has(name)) return name
    }
  }
}
