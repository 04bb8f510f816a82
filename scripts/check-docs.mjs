// Fails when the generated documents are not what the source says.
process.argv.push('--check')
await import('./generate-docs.mjs')
