/** Agents in nothing but a POSIX shell, so that they run inside any runtime: `say X` is answered with X, `tool` with a use of one. */

const field = (name: string) => `sed -n 's/.*"${name}":\\("[^"]*"\\|[0-9][0-9]*\\).*/\\1/p'`
const said = (name: string) => `sed -n 's/.*"${name}":"say \\([^"]*\\)".*/\\1/p'`

const PI = `
while IFS= read -r line; do
  id=$(printf '%s' "$line" | ${field('id')}); [ -n "$id" ] || id=null
  type=$(printf '%s' "$line" | sed -n 's/.*"type":"\\([a-z_]*\\)".*/\\1/p')
  answer() { printf '{"id":%s,"type":"response","command":"%s","success":true%s}\\n' "$id" "$type" "$1"; }
  case $type in
    get_state) answer ',"data":{"isStreaming":false,"pendingMessageCount":0,"sessionFile":"/s/1.jsonl"}' ;;
    new_session|switch_session) answer ',"data":{"cancelled":false}' ;;
    prompt)
      text=$(printf '%s' "$line" | ${said('message')})
      answer ''
      printf '{"type":"agent_start"}\\n'
      case $line in *'"tool"'*)
        text=looked
        printf '{"type":"tool_execution_start","toolCallId":"t1","toolName":"look","args":{}}\\n'
        printf '{"type":"tool_execution_end","toolCallId":"t1","toolName":"look","result":{},"isError":false}\\n' ;;
      esac
      printf '{"type":"message_update","message":{},"assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":"%s"}}\\n' "$text"
      message="{\\"role\\":\\"assistant\\",\\"content\\":[{\\"type\\":\\"text\\",\\"text\\":\\"$text\\"}],\\"stopReason\\":\\"stop\\"}"
      printf '{"type":"message_end","message":%s}\\n{"type":"agent_end","messages":[%s]}\\n' "$message" "$message" ;;
    *) answer '' ;;
  esac
done
`

const ACP = `
while IFS= read -r line; do
  id=$(printf '%s' "$line" | ${field('id')})
  case $line in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":1,"agentCapabilities":{}}}\\n' "$id" ;;
    *'"session/new"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"sessionId":"s1"}}\\n' "$id" ;;
    *'"session/prompt"'*)
      text=$(printf '%s' "$line" | ${said('text')})
      session=$(printf '%s' "$line" | sed -n 's/.*"sessionId":"\\([^"]*\\)".*/\\1/p')
      update() { printf '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"%s","update":{"sessionUpdate":%s}}}\\n' "$session" "$1"; }
      case $line in *'"tool"'*)
        text=looked
        update '"tool_call","toolCallId":"t1","title":"look","kind":"read","status":"pending"'
        update '"tool_call_update","toolCallId":"t1","status":"completed"' ;;
      esac
      update "\\"agent_message_chunk\\",\\"content\\":{\\"type\\":\\"text\\",\\"text\\":\\"$text\\"}"
      printf '{"jsonrpc":"2.0","id":%s,"result":{"stopReason":"end_turn"}}\\n' "$id" ;;
  esac
done
`

/** The entry command of such an agent. */
export const shellAgent = (protocol: 'pi' | 'acp'): string => (protocol === 'pi' ? PI : ACP)
