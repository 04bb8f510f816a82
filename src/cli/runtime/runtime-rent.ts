/** `pylon runtime` before there is one: offers, provision, run, what was rented, images. */
import type { Argv } from 'yargs'
import { formatSats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { callNode, defineCommand, defineGroup } from '../command.ts'
import { printAnswer, printRaw, warn } from '../terminal/output.ts'
import { clockTime, drawTable, relativeTime, shortId } from '../terminal/table.ts'
import { many, nameAndValue, one, textFrom, wholeNumberIf } from '../terminal/values.ts'
import {
  drawRuntime,
  type Fields,
  fieldsOf,
  type Paid,
  PROTOCOLS,
  PROVIDERS,
  runtimeCall,
  shellOf,
  textOf,
  withPrice,
  wordsOf,
} from './runtime-call.ts'

function withMachine<T>(yargs: Argv<T>) {
  return withPrice(yargs)
    .option('provider', { choices: PROVIDERS, describe: 'The substrate (that of the class, else local)' })
    .option('class', { type: 'string', nargs: 1, describe: 'The runtime class, as offers name it' })
    .option('name', { type: 'string', nargs: 1, describe: 'A name of your own; a volume is found again by it' })
    .option('lease', { type: 'string', nargs: 1, describe: 'Seconds to rent it for (the shortest that the class has)' })
    .option('env', {
      type: 'string',
      nargs: 1,
      describe: 'NAME=VALUE for the command inside; NAME=@FILE keeps it out of ps; may be repeated',
    })
    .option('image', { type: 'string', nargs: 1, describe: 'Image alias, where the substrate has images' })
    .option('target', { type: 'string', nargs: 1, describe: 'Cluster member' })
    .option('cpus', { type: 'string', nargs: 1, describe: 'CPUs, at most what the class gives' })
    .option('memory-mib', { type: 'string', nargs: 1, describe: 'Memory, at most what the class gives' })
    .option('disk-gib', { type: 'string', nargs: 1, describe: 'Root disk, at most what the class gives' })
    .option('spawner-url', { type: 'string', nargs: 1, describe: 'microvm: one of the spawners that the node lists' })
}

interface MachineArgs {
  readonly sandbox: boolean
  readonly server: string | undefined
  readonly local: boolean
  readonly provider: (typeof PROVIDERS)[number] | undefined
  readonly class: string | undefined
  readonly name: string | undefined
  readonly lease: string | undefined
  readonly env: string | readonly string[] | undefined
  readonly image: string | undefined
  readonly target: string | undefined
  readonly cpus: string | undefined
  readonly memoryMib: string | undefined
  readonly diskGib: string | undefined
  readonly spawnerUrl: string | undefined
}

function machineFields(args: MachineArgs, provider: string | undefined): Fields {
  const resources = given({
    vcpu_count: wholeNumberIf(args.cpus, '--cpus'),
    memory_mib: wholeNumberIf(args.memoryMib, '--memory-mib'),
    root_disk_gib: wholeNumberIf(args.diskGib, '--disk-gib'),
  })
  if (args.spawnerUrl !== undefined && provider !== 'microvm') throw new PylonError('usage', '--spawner-url needs --provider microvm.')
  const env = many(args.env).map((pair) => nameAndValue(pair, '--env'))
  return given({
    provider,
    runtime_class: args.class,
    name: args.name,
    lease_seconds: wholeNumberIf(args.lease, '--lease'),
    env: env.length === 0 ? undefined : Object.fromEntries(env.map(([name, value]) => [name, textFrom(value).replace(/\n$/, '')])),
    image: args.image,
    target: args.target,
    resources: Object.keys(resources).length === 0 ? undefined : resources,
    microvm: args.spawnerUrl === undefined ? undefined : { spawner_url: args.spawnerUrl },
  })
}

/** The provider that was named, else that of the class as its node offers it. */
async function providerOf(args: MachineArgs): Promise<string | undefined> {
  if (args.provider !== undefined || args.class === undefined || args.local || args.server === undefined) return args.provider
  const filter = given({ server: one(args.server, '--server'), class: args.class, full: 'true' as const })
  const { value } = await callNode(args, runtimesRoutes.listOffers, filter)
  const [offer] = value.offers
  if (offer !== undefined) return offer.provider
  throw new PylonError('no_offer', `The node offers no class ${args.class}: name its --provider, or look at: pylon runtime offers`)
}

const provision = defineCommand({
  command: 'provision',
  describe: 'Start a runtime that serves an agent; pays the lease within --max-sats where one is asked',
  builder: (yargs) =>
    withMachine(yargs)
      .option('protocol', { choices: PROTOCOLS, default: 'acp' as const, describe: 'How the agent inside is spoken to' })
      .option('command', { type: 'string', nargs: 1, describe: 'The agent process (that of the class by default)' })
      .option('keep', { type: 'boolean', default: false, describe: 'Keep its volume when it is torn down' })
      .option('relay', { type: 'string', nargs: 1, describe: 'A relay for the agent; may be repeated' }),
  handler: async (args) => {
    const provider = (await providerOf(args)) ?? 'local'
    const relays = many(args.relay)
    const answer = await runtimeCall(args, {
      command: 'provision',
      protocol: args.protocol,
      keep: args.keep,
      ...machineFields(args, provider),
      ...given({ entry_command: args.command, relay_urls: relays.length === 0 ? undefined : relays }),
    })
    printAnswer(args, answer, (done) => `${drawRuntime(done.runtime)}\n\n${drawCost(done)}${howOn(done)}`)
  },
})

function drawCost({ paid_msats }: Paid): string {
  return paid_msats > 0n ? `Paid ${formatSats(paid_msats)}.\n` : ''
}

function howOn({ runtime }: Paid): string {
  return `Prompt it: pylon runtime prompt ${runtime.runtime_id} TEXT\nEnd it: pylon runtime teardown ${runtime.runtime_id}`
}

const run = defineCommand({
  command: 'run [shell..]',
  describe: 'Run one command in a fresh runtime: runtime run -- CMD; exit code and output come back',
  builder: (yargs) =>
    withMachine(yargs)
      .positional('shell', { type: 'string', array: true, describe: 'The command; one argument is a shell script' })
      .option('run-timeout', { type: 'string', nargs: 1, describe: 'Seconds that it may take inside (600)' })
      .option('artifact', {
        type: 'string',
        nargs: 1,
        describe: 'A pattern of files to collect from $PYLON_ARTIFACTS_DIR; may be repeated',
      })
      .option('keep', { type: 'boolean', default: false, describe: 'Leave the runtime for a look until it is torn down' }),
  handler: async (args) => {
    const words = wordsOf(args)
    if (words.length === 0) throw new PylonError('usage', 'Name a command: pylon runtime run -- CMD')
    const provider = await providerOf(args)
    const artifacts = many(args.artifact)
    const answer = await runtimeCall(args, {
      command: 'run',
      entry_command: words.length === 1 ? textFrom(words[0] ?? '') : shellOf(words),
      keep: args.keep,
      ...machineFields(args, provider),
      ...given({
        timeout_s: wholeNumberIf(args.runTimeout, '--run-timeout'),
        artifact_globs: artifacts.length === 0 ? undefined : artifacts,
      }),
    })
    const result = fieldsOf(answer.value.payload)
    process.exitCode = typeof result['exit_code'] === 'number' ? result['exit_code'] & 0xff : 1
    if (args.json) {
      printAnswer(args, answer, () => '')
      return
    }
    printRaw(process.stdout, textOf(result['stdout']))
    printRaw(process.stderr, textOf(result['stderr']))
    if (textOf(result['message']) !== '' && result['exit_code'] !== 0) warn(textOf(result['message']))
    if (textOf(result['error']) !== '')
      warn(`${textOf(result['error'])}: pylon runtime collect ${answer.value.runtime.runtime_id} --output stdout`)
    process.stderr.write(drawCost(answer.value))
  },
})

const offers = defineCommand({
  command: 'offers',
  describe: 'Machines that nodes rent out, the cheapest first',
  builder: (yargs) =>
    yargs
      .option('server', { type: 'string', nargs: 1, describe: 'Only those of this npub' })
      .option('region', { type: 'string', nargs: 1, describe: 'Only those of this region' })
      .option('protocol', { choices: PROTOCOLS, describe: 'Only those that speak it' })
      .option('provider', { choices: PROVIDERS, describe: 'Only those on this substrate' })
      .option('class', { type: 'string', nargs: 1, describe: 'Only those of this class' })
      .option('max-price', { type: 'string', nargs: 1, describe: 'Sats an hour at most' })
      .option('full', { type: 'boolean', default: false, describe: 'Also those with nothing free now' }),
  handler: async (args) => {
    const maxPrice = wholeNumberIf(args.maxPrice, '--max-price', 0)
    const filter = given({
      server: args.server,
      region: args.region,
      protocol: args.protocol,
      provider: args.provider,
      class: args.class,
      max_msats_per_hour: maxPrice === undefined ? undefined : String(maxPrice * 1000),
      full: args.full ? ('true' as const) : undefined,
    })
    const answer = await callNode(args, runtimesRoutes.listOffers, filter)
    printAnswer(args, answer, ({ offers }) =>
      offers.length === 0
        ? 'Nobody on the relays of this node offers such a machine; try other filters, or --full.'
        : drawTable(
            [
              { title: 'CLASS' },
              { title: 'PROVIDER' },
              { title: 'REGION' },
              { title: 'PROTOCOLS' },
              { title: 'AN HOUR', align: 'right' },
              { title: 'FREE', align: 'right' },
              { title: 'ISOLATED' },
              { title: 'SERVER' },
            ],
            offers.map((offer) => [
              offer.runtime_class,
              offer.provider,
              offer.region,
              offer.protocols.join(', ') || 'runs only',
              formatSats(offer.price_msats_per_hour),
              `${offer.capacity_free}/${offer.capacity_total}`,
              offer.isolated ? 'yes' : 'no',
              offer.server,
            ]),
          ),
    )
  },
})

const rentals = defineCommand({
  command: 'rentals',
  describe: 'What you asked of machines, here and elsewhere, and what it cost',
  builder: (yargs) => yargs.option('limit', { type: 'string', nargs: 1, alias: 'n', describe: 'How many (50)' }),
  handler: async (args) => {
    const answer = await callNode(args, runtimesRoutes.listRentals, given({ limit: wholeNumberIf(args.limit, '--limit') }))
    printAnswer(args, answer, ({ rentals }) =>
      rentals.length === 0
        ? 'Nothing was asked for yet; try: pylon runtime run -- uname -a'
        : drawTable(
            [
              { title: 'ASKED' },
              { title: 'COMMAND' },
              { title: 'STATE' },
              { title: 'PAID', align: 'right' },
              { title: 'RUNTIME' },
              { title: 'SERVER' },
              { title: 'LEASE UNTIL (UTC)' },
            ],
            rentals.map((rental) => [
              relativeTime(rental.created_at, Date.now()),
              rental.command,
              rental.reason === null ? rental.state : `${rental.state}: ${rental.reason.slice(0, 40)}`,
              formatSats(msats(rental.paid_msats - rental.refunded_msats)),
              rental.runtime_id ?? '-',
              shortId(rental.server),
              rental.lease_ends_at === null ? '-' : clockTime(rental.lease_ends_at),
            ]),
          ),
    )
  },
})

const build = defineCommand({
  command: 'build [kind]',
  describe: 'Make the images of Incus on this machine, with project, profile and guest program: debian for agents, busybox for runs',
  builder: (yargs) =>
    yargs
      .positional('kind', { choices: ['debian', 'busybox'] as const, describe: 'Only this one' })
      .option('suite', { type: 'string', nargs: 1, describe: 'Of Debian (bookworm)' })
      .option('mirror', { type: 'string', nargs: 1, describe: 'Of Debian' }),
  handler: async (args) => {
    const answer = await callNode(args, runtimesRoutes.buildImage, {
      ...given({ kind: args.kind, suite: args.suite, mirror: args.mirror }),
    })
    printAnswer(args, answer, ({ images, guest_dir, created }) =>
      [
        ...images.map(({ alias, fingerprint }) => `The image ${alias} is ${fingerprint.slice(0, 12)}.`),
        ...(guest_dir === null ? [] : [`The guest program is in ${guest_dir}.`]),
        ...(created.length === 0 ? [] : [`Made in Incus: ${created.join(', ')}.`]),
      ].join('\n'),
    )
  },
})

const image = defineGroup('image', 'Images that runtimes of Incus start from', [build])

export const rentCommands = [provision, run, offers, rentals, image]
