/** What the owner says about Incus: where it is, where in it Pylon works, and what a runtime gets. */
import type { IncusEndpoint } from './transport.ts'

export interface IncusSettings {
  readonly endpoint: IncusEndpoint
  readonly project: string
  readonly profile: string
  readonly pool: string
  /** Names this node on what it makes (`user.pylon.node`), so that two nodes never sweep each other's instances. */
  readonly nodeId: string
  /** The alias used where the request names none: by protocol, since a full guest needs glibc. */
  readonly images: { readonly managed: string; readonly oneShot: string; readonly allowed?: readonly string[] }
  readonly guest: GuestSettings
  readonly defaults: { readonly vcpus: number; readonly memoryMib: number; readonly rootDiskGib: number; readonly processes: number }
  /** What all runtimes of this node may take together; default: what the machine has. */
  readonly limits?: { readonly instances?: number; readonly vcpus?: number; readonly memoryMib?: number }
  /** Host paths that a read_only_snapshot may come from; none by default. */
  readonly allowedHostPaths?: readonly string[]
  /** A managed bridge that every runtime gets a nic on; none by default: prompts and files need no network. */
  readonly network?: string
  /** Loopback ports of the host that `expose` may take, both ends included. */
  readonly proxyPorts?: readonly [number, number]
}

export interface GuestSettings {
  /** World-readable, versioned, mounted read-only at the same path: such as /opt/pylon/0.1.0. */
  readonly hostDir: string
  /** argv of the guest role inside: such as `/opt/pylon/0.1.0/pylon guest`. */
  readonly command: readonly string[]
  /** The POSIX shell guest itself: alone in small images, the parent of the full guest in others. */
  readonly shellScript: string
}
