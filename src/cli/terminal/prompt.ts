/** Asks the person at the terminal for secrets without showing them; where stdin is no terminal, its first lines are taken. */
import { createInterface } from 'node:readline'
import { PylonError } from '../../base/errors.ts'

const ENTER = /[\r\n]/
const INTERRUPT = '\u0003'
const END = '\u0004'
const ERASE = new Set(['\b', '\u007f'])

export async function askSecret(question: string): Promise<string> {
  const [answer = ''] = await askSecrets([question])
  return answer
}

/** The answers in order; one that did not come is empty. */
export async function askSecrets(questions: readonly string[]): Promise<string[]> {
  if (!process.stdin.isTTY) return await linesOfStdin(questions.length)
  const answers: string[] = []
  for (const question of questions) answers.push(await askTerminal(question))
  return answers
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

async function linesOfStdin(count: number): Promise<string[]> {
  const lines = createInterface({ input: process.stdin })
  const answers: string[] = []
  try {
    for await (const line of lines) if (answers.push(line) === count) break
    return answers
  } finally {
    lines.close()
    process.stdin.pause()
  }
}
