/** What every substrate of runtimes offers: the one interface behind which incus, local, microvm, fly and workers stand. */
import type { Json } from '../base/json.ts'
import type { RuntimeEvent, RuntimeStatusSnapshot, RuntimeTerminalResult } from './contract/lifecycle.ts'
import type { PromptResult, Protocol } from './contract/prompt.ts'
import type { RuntimeSpec } from './contract/spec.ts'

export const PROVIDER_KINDS = ['incus', 'local', 'microvm', 'fly', 'workers'] as const
export type ProviderKind = (typeof PROVIDER_KINDS)[number]

/** What an adapter keeps about one runtime: JSON, stored by the caller, read by nobody else. */
export type RuntimeHandle = Json

export interface SessionInput {
  /** 64 hex digits, a secret between the owner and the guest. */
  readonly token: string
  /** ws and wss URLs. */
  readonly relays: readonly string[]
  /** A Unix socket of this host, in a folder of its own, that the guest reaches relays through; left out where it has a network. */
  readonly doorSocket?: string
}

export interface ProvisionInput {
  /** `<provider>-<16 hex>` */
  readonly runtimeId: string
  readonly ownerPubkey: string
  readonly spec: RuntimeSpec
  /** Null: a one-shot run of spec.entry_command. Else spec.entry_command is the agent that speaks it. */
  readonly protocol: Protocol | null
  /** The time of a one-shot run, enforced in the guest; the host's watchdog waits longer. */
  readonly timeoutSecs?: number
  /** Environment of the entry command, secrets among it: travels by private file, never by instance config. */
  readonly env?: Readonly<Record<string, string>>
  /** The owner will talk to the agent in an encrypted session: the guest makes a key, and says so over these relays with a proof by the token. */
  readonly session?: SessionInput
  /** Cluster member to place on, where the substrate has members. */
  readonly target?: string
  /** Provider specific, decoded strictly by the adapter. */
  readonly params?: Readonly<Record<string, Json>>
}

export interface Provisioned {
  readonly handle: RuntimeHandle
  readonly region?: string
  readonly runtimeClass?: string
  readonly protocols: readonly Protocol[]
  /** For the descriptor; no secrets. */
  readonly metadata: Json
}

export interface Readiness {
  readonly state: 'starting' | 'ready' | 'failed' | 'completed' | 'unreachable' | 'stopped'
  readonly bootId?: string
  readonly message: string
  /** Only a status that was believed: right schema, right boot id. */
  readonly status?: RuntimeStatusSnapshot
  /** Of one that is not well: what runs inside did it, not the host. Left out where nobody can tell, never while the instance runs on. */
  readonly byGuest?: true
}

export interface Capacity {
  readonly instances: number
  readonly vcpus: number
  readonly memoryMib: number
  readonly free: { readonly instances: number; readonly vcpus: number; readonly memoryMib: number }
}

export interface AdapterProbe {
  readonly usable: boolean
  /** Whether strangers may run on it. */
  readonly isolated: boolean
  /** What a runtime reaches that asks for nothing else: only a loopback of its own, a bridge of the node, or all that the host does. */
  readonly network?: 'none' | 'bridge' | 'host'
  /** What a usable substrate can't do yet: serve agents, or run without being told an image. */
  readonly lacks?: 'agents' | 'runs'
  readonly reason?: string
  readonly nextStep?: string
}

export interface Welcome {
  readonly groupId: string
  readonly wrapperEventIdHex?: string
  readonly welcomeEventJson?: string
}

export interface Execution {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
  readonly truncated: boolean
}

export interface CollectedArtifact {
  /** Relative to artifacts_dir, forward slashes, no `..`. */
  readonly path: string
  readonly data: Uint8Array
}

export interface CollectedOutputs {
  readonly status?: RuntimeStatusSnapshot
  readonly result?: RuntimeTerminalResult
  readonly events: readonly RuntimeEvent[]
  /** Of the entry command; empty where the policy leaves logs out. */
  readonly stdout: string
  readonly stderr: string
  /** The guest's own log. */
  readonly log: string
  readonly artifacts: readonly CollectedArtifact[]
  /** Whether a cap cut something off. */
  readonly truncated: boolean
  /** What was refused or unreadable, in words. */
  readonly problems: readonly string[]
}

export interface Snapshot {
  readonly name: string
  /** Milliseconds since the epoch. */
  readonly createdAt: number
}

/** What outlives runtimes until somebody deletes it. */
export interface PersistentVolume {
  /** As its substrate names it. */
  readonly id: string
  /** Undefined for one of before owners were noted on it. */
  readonly ownerPubkey: string | undefined
  /** What its runtime was called, where that had a name. */
  readonly name: string | undefined
  /** The runtime that had it last. */
  readonly runtimeId: string | undefined
  readonly inUse: boolean
}

export interface BackupState {
  readonly backupUnitKind: 'durable_home' | 'persistent_state_volume'
  /** `<pool>/<volume>` */
  readonly backupTarget: string
  readonly recoveryPointKind: 'metadata_record' | 'volume_snapshot'
  /** Newest first; undefined where the substrate could not be asked. */
  readonly snapshots: readonly Snapshot[] | undefined
}

export interface PromptCall {
  readonly protocol: Protocol
  readonly message: string
  readonly sessionId: string
  readonly idempotencyKey?: string
  readonly timeoutMs: number
}

/**
 * Errors of every method: runtime_gone where the instance is no more, runtime_unreachable where the substrate or the
 * guest can't be asked now, runtime_failed where it refused or lied, runtime_unsupported for what it can't do,
 * the spec_* codes for a spec it can't honour.
 */
export interface RuntimeAdapter {
  readonly provider: ProviderKind
  /** Whether it carries a Unix socket of this host into its runtimes: SessionInput.doorSocket. */
  readonly carriesDoor?: boolean
  /** Usable here? with reason and next step: doctor prints it. Never throws. */
  probe(): Promise<AdapterProbe>
  capacity(): Promise<Capacity>
  /** Refuses what provision would refuse now, and makes nothing: asked before money is. @throws as provision does for it */
  assertPossible(input: ProvisionInput): Promise<void>
  /** Idempotent by runtimeId: again after a crash it adopts what exists. On failure nothing is left behind. */
  provision(input: ProvisionInput, signal: AbortSignal): Promise<Provisioned>
  /** Never throws for a runtime that is merely unwell: that is a state. */
  readiness(handle: RuntimeHandle, signal: AbortSignal): Promise<Readiness>
  processWelcome(handle: RuntimeHandle, welcome: Welcome): Promise<Json>
  /** Idempotent: gone is fine. The payload holds `teardown: 'deleted'`. */
  teardown(handle: RuntimeHandle, options: { readonly keepVolume: boolean }): Promise<Json>

  // Undefined where the substrate has no such thing.
  exec?(handle: RuntimeHandle, call: { readonly command: string; readonly timeoutMs: number; readonly user?: string }): Promise<Execution>
  /** By way of the guest's POST /v1/runtime/prompt. */
  prompt?(handle: RuntimeHandle, call: PromptCall, signal: AbortSignal): Promise<PromptResult>
  logs?(handle: RuntimeHandle, options: { readonly tailBytes: number }): Promise<string>
  /** An adapter without it runs no one-shot commands. Lifecycle files, logs and artifacts by spec.policies.output_collection: paths contained, sizes capped. Call it before teardown. */
  collect?(handle: RuntimeHandle, spec: RuntimeSpec): Promise<CollectedOutputs>
  /** Starts the instance again with its volume. */
  recover?(handle: RuntimeHandle, signal: AbortSignal): Promise<void>
  /**
   * Of the volume. Retention is the caller's: see deleteSnapshot.
   * @param options.withinQuota it and those before it count against what the volume may take @throws overloaded where there is no room then
   */
  snapshot?(handle: RuntimeHandle, name?: string, options?: { readonly withinQuota?: boolean }): Promise<Snapshot>
  /** Newest first. */
  listSnapshots?(handle: RuntimeHandle): Promise<readonly Snapshot[]>
  deleteSnapshot?(handle: RuntimeHandle, name: string): Promise<void>
  /** The newest where no name is given. @throws runtime_failed where there is none */
  restore?(handle: RuntimeHandle, name: string | undefined, signal: AbortSignal): Promise<Snapshot>
  backupStatus?(handle: RuntimeHandle): Promise<BackupState>
  /** Those of this node, in use or kept. */
  listVolumes?(): Promise<readonly PersistentVolume[]>
  /** With its snapshots; gone is fine. @throws runtime_failed while a runtime has it */
  deleteVolume?(id: string): Promise<void>
  /** Whether the sizes that runtimes are given hold: tried on a scratch runtime that writes past them. Undefined: they do. */
  proveSizes?(): Promise<{ readonly reason: string; readonly nextStep: string } | undefined>
  /** Instances of ours that the substrate holds, for the orphan sweep. A handle of null: it is there, and cannot be looked at now. */
  listOwned?(): Promise<readonly { readonly runtimeId: string; readonly handle: RuntimeHandle }[]>
}
