/** Asks the person at the terminal for a secret without showing it; where stdin is no terminal, its first line is taken. */
import { createInterface } from 'node:readline'
import { PylonError } from '../../base/errors.ts'

const ENTER = /[\r\n]/
const INTERRUPT = '\u0003'
const END = '\u0004'
const ERASE = new Set(['\b', '\u007f'])

export async function askSecret(question: string): Promise<string> {
  return process.stdin.isTTY ? await askTerminal(question) : await firstLineOfStdin()
}

function askTerminal(question: string): Promise<string> {
  const { stdin, stderr } = process
  stderr.write(question)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8')
  stdin.resume()
  return new Promise((resolve, reject) => {
    let typed = ''
    const finish = (outcome: () => void) => {
      stdin.off('data', onData)
      stdin.setRawMode(false)
      stdin.pause()
      stderr.write('\n')
      outcome()
    }
    const onData = (text: string) => {
      for (const char of text) {
        if (ENTER.test(char)) return finish(() => resolve(typed))
        if (char === INTERRUPT || char === END) return finish(() => reject(new PylonError('cancelled', 'Nothing was changed.')))
        typed = ERASE.has(char) ? [...typed].slice(0, -1).join('') : typed + char
      }
    }
    stdin.on('data', onData)
  })
}

async function firstLineOfStdin(): Promise<string> {
  const lines = createInterface({ input: process.stdin })
  try {
    for await (const line of lines) return line
    return ''
  } finally {
    lines.close()
    process.stdin.pause()
  }
}
