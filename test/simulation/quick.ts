/** For processes that play simulations: whatever they load from here on gets the quick signatures. */
import { registerHooks } from 'node:module'

registerHooks({
  resolve: (specifier, context, next) =>
    specifier === 'tiny-secp256k1' ? next(new URL('./quick-secp.ts', import.meta.url).href, context) : next(specifier, context),
})
