/** From what Incus said to what every adapter says: callers above know the runtime_* codes, owners the words of Incus. */
import { type ErrorCode, isPylonError, PylonError } from '../../base/errors.ts'

const AS: Partial<Readonly<Record<ErrorCode, ErrorCode>>> = {
  incus_not_found: 'runtime_gone',
  incus_unreachable: 'runtime_unreachable',
  incus_untrusted: 'runtime_unreachable',
  incus_conflict: 'runtime_failed',
  incus_failed: 'runtime_failed',
  incus_forbidden: 'runtime_failed',
  incus_image_missing: 'runtime_failed',
  incus_no_space: 'runtime_failed',
  incus_limit_reached: 'runtime_failed',
}

/** Runs one method of the adapter; details.incus_code keeps the finer code. */
export async function inRuntimeTerms<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const code = isPylonError(error) ? AS[error.code] : undefined
    if (!isPylonError(error) || code === undefined) throw error
    throw new PylonError(code, error.message, { details: { ...error.details, incus_code: error.code }, cause: error })
  }
}
