/** The section [runtimes] of config.toml: who may have machines, which classes there are, and the substrates beneath. */
import { z } from 'zod'

const httpUrl = z.string().regex(/^https?:\/\/[^\s#]+$/, 'must be an http:// or https:// URL')
const seconds = z.int().min(1)
const path = z.string().max(4096)
const port = z.int().min(1).max(65_535)

const runtimeClass = z.strictObject({
  /** What commands target and offers carry. */
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, 'must be 1 to 63 of a-z 0-9 . _ -'),
  provider: z.enum(['local', 'incus', 'microvm', 'fly', 'workers']),
  region: z.string().max(64).default(''),
  protocols: z.array(z.enum(['pi', 'acp'])).default([]),
  /** 0: for the owner and the allowlist alone; else offered to strangers. */
  price_msats_per_hour: z.int().min(0).default(0),
  min_lease_s: seconds.default(60),
  max_lease_s: seconds.default(30 * 86_400),
  /** Runtimes of the class at once; what the substrate has free may be less. */
  capacity: z.int().min(1).max(10_000).default(4),
  vcpu_count: z.int().min(1).max(255).optional(),
  memory_mib: z.int().min(16).optional(),
  root_disk_gib: z.int().min(1).optional(),
  /** Image alias of substrates that have images. */
  image: z.string().max(128).optional(),
  /** The agent process of a managed runtime whose request names none. */
  pi_command: z.string().max(4096).default('pi --mode rpc'),
  acp_command: z.string().max(4096).default(''),
})

export type RuntimeClassConfig = z.infer<typeof runtimeClass>

export const runtimesConfig = z.strictObject({
  enabled: z.boolean().default(true),
  /** npubs or 64 hex digits: they have runtimes without paying. */
  allowlist: z.array(z.string().regex(/^(?:npub1[a-z0-9]{58}|[0-9a-f]{64})$/, 'must be an npub or 64 hex digits')).default([]),
  /** Sandbox only: sells runtimes that nothing isolates. */
  allow_unisolated: z.boolean().default(false),
  /** Runtimes of one requester at most; own keys are not counted. */
  max_per_owner: z.int().min(1).max(1000).default(8),
  /** How long the invoice of a lease is good. */
  payment_expiry_s: seconds.default(900),
  /** How long before its end a tenant is told. */
  lease_notice_s: seconds.default(300),
  provision_timeout_s: seconds.default(300),
  /** What the host waits longer than the guest's own timeout. */
  watchdog_grace_s: seconds.default(30),
  /** How long a runtime may be unreachable before it counts as lost. */
  unreachable_after_s: seconds.default(600),
  /** Time between two scheduled snapshots of a managed runtime's volume; 0: none. */
  snapshot_every_s: z.int().min(0).default(86_400),
  snapshot_keep: z.int().min(1).max(365).default(7),
  /** A newest snapshot older than this is stale. */
  snapshot_stale_s: seconds.default(86_400 + 3600),
  /** Answers kept for replay and get_request. */
  requests_kept: z.int().min(256).default(8192),
  /** How long a runtime that is gone, and what was collected from it, can still be looked at. */
  gone_days: z.int().min(1).default(7),
  /** What was collected from runtimes, all of it together: beyond it the oldest goes. */
  outputs_kept_mib: z.int().min(64).max(1_000_000).default(2048),
  /** The class of jobs of kind 5930; empty: the first local or incus class that isolates. */
  job_class: z.string().max(63).default(''),
  classes: z.array(runtimeClass).max(64).default([]),
  local: z
    .strictObject({
      enabled: z.boolean().default(true),
      max_instances: z.int().min(1).max(1000).default(8),
      /** What a runtime gets that names no network; `host` shares this machine's, loopback included. */
      network: z.enum(['none', 'host']).default('none'),
      allow_host_network: z.boolean().default(false),
      /** Host folders below which a read-only snapshot may lie. */
      snapshot_roots: z.array(path).max(32).default([]),
    })
    .prefault({}),
  incus: z
    .strictObject({
      enabled: z.boolean().default(false),
      /** The Unix socket, or a URL with the three files below. */
      socket: path.default('/var/lib/incus/unix.socket'),
      url: z.union([z.literal(''), z.string().regex(/^https:\/\/[^\s#]+$/, 'must be an https:// URL')]).default(''),
      client_cert_file: path.default(''),
      client_key_file: path.default(''),
      /** The certificate of the server, pinned. */
      server_cert_file: path.default(''),
      project: z.string().min(1).max(63).default('pylon'),
      profile: z.string().min(1).max(63).default('default'),
      pool: z.string().min(1).max(63).default('pylon'),
      image: z.string().min(1).max(128).default('pylon/debian'),
      run_image: z.string().min(1).max(128).default('pylon/busybox'),
      /** Images beyond these that requests may name. */
      images: z.array(z.string().min(1).max(128)).max(64).default([]),
      /** A managed bridge that runtimes get a nic on; empty: none. */
      network: z.string().max(63).default(''),
      /** First and last loopback port that runtimes may expose; empty: none. */
      proxy_ports: z.union([z.tuple([]), z.tuple([port, port])]).default([]),
      /** World-readable, versioned: where the guest program lies, on the host and inside. Empty: /opt/pylon/<version>. */
      guest_dir: path.default(''),
      vcpu_count: z.int().min(1).max(255).default(1),
      memory_mib: z.int().min(16).default(512),
      root_disk_gib: z.int().min(1).default(4),
      processes: z.int().min(16).default(512),
      /** All runtimes of this node together; 0: what the machine has. */
      max_instances: z.int().min(0).default(0),
      max_vcpus: z.int().min(0).default(0),
      max_memory_mib: z.int().min(0).default(0),
      snapshot_roots: z.array(path).max(32).default([]),
    })
    .prefault({}),
  microvm: z
    .strictObject({
      /** vm-spawners that requests may pick; the first is the default. Private addresses only. */
      spawner_urls: z.array(httpUrl).max(16).default([]),
      max_instances: z.int().min(1).max(1000).default(8),
    })
    .prefault({}),
  fly: z
    .strictObject({
      /** The app; empty: Fly is not used. */
      app_name: z.string().max(128).default(''),
      api_base_url: httpUrl.default('https://api.machines.dev'),
      region: z.string().max(64).default('iad'),
      image: z.string().max(512).default(''),
      token_file: path.default(''),
      max_instances: z.int().min(1).max(1000).default(10),
    })
    .prefault({}),
  workers: z
    .strictObject({
      /** The broker; empty: not used. */
      base_url: z.union([z.literal(''), httpUrl]).default(''),
      /** The external runtime that it relays to. */
      runtime_url: z.union([z.literal(''), httpUrl]).default(''),
      token_file: path.default(''),
      runtime_token_file: path.default(''),
      max_instances: z.int().min(1).max(1000).default(10),
    })
    .prefault({}),
})

export type RuntimesConfig = z.infer<typeof runtimesConfig>
