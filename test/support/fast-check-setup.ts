/** In CI a law that does not hold is told at once, with its seed; shrinking would only end in the time-out of the test. */
import fc from 'fast-check'

fc.configureGlobal({ endOnFailure: process.env['CI'] !== undefined })
