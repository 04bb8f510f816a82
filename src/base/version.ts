/** The version of this build, put in by the bundler; `0.0.0-dev` where the source runs unbundled (unit tests). */
declare const PYLON_VERSION: string | undefined

export const VERSION: string = typeof PYLON_VERSION === 'string' ? PYLON_VERSION : '0.0.0-dev'
