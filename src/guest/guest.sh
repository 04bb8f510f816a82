#!/bin/sh
# The small guest: lifecycle files and one-shot runs with nothing but a POSIX shell, and the parent that leaves a
# terminal result when a full guest dies without one.
#
#   guest.sh --request PATH [--state-dir DIR] [--restart never|on_failure|always]
#   guest.sh --supervise [--state-dir DIR] -- COMMAND...
#
# Needs sh, awk, date, sed, tr, mv, rm, mkdir, sleep, setsid; works with dash, bash and busybox.
set -u
LC_ALL=C
export LC_ALL
umask 022

mode= request= state_dir=/run/pika-cloud restart=never
while [ $# -gt 0 ]; do
  case $1 in
    --request) mode=request request=${2-}; shift 2 || exit 2 ;;
    --state-dir) state_dir=${2-}; shift 2 || exit 2 ;;
    --restart) restart=${2-}; shift 2 || exit 2 ;;
    --supervise) mode=supervise; shift ;;
    --) shift; break ;;
    *) echo "guest.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ -n "$mode" ] || { echo 'guest.sh: give --request PATH or --supervise' >&2; exit 2; }

status_path=$state_dir/status.json
events_path=$state_dir/events.jsonl
result_path=$state_dir/result.json
logs_dir=$state_dir/logs
boot_id=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || echo unknown)
# Where the one-shot command's pid stands while it runs, and what ended it.
child= ended=

now() { date -u +%Y-%m-%dT%H:%M:%SZ; }

# escape TEXT [BYTES]: one JSON string body: cut, control characters blanked, backslash and quote escaped.
escape() { printf '%s' "$1" | tr '\000-\037\177' ' ' | cut -c1-"${2:-400}" | sed 's/\\/\\\\/g; s/"/\\"/g'; }

# is_plain PATH: a file, or nothing yet. What runs inside may put a pipe or a link there, which is neither waited for nor followed.
is_plain() { [ ! -L "$1" ] && { [ -f "$1" ] || [ ! -e "$1" ]; }; }

# write_file PATH TEXT: whole or not at all, also where something else has taken the place.
write_file() {
  is_plain "$1" || rm -rf "$1"
  printf '%s\n' "$2" >"$1.$$.tmp" || return 1
  sync "$1.$$.tmp" 2>/dev/null || sync
  mv -f "$1.$$.tmp" "$1"
}

next_seq() {
  last=0
  [ -f "$events_path" ] && last=$(tail -n 1 "$events_path" | sed -n 's/.*"seq":\([0-9][0-9]*\).*/\1/p')
  echo $((${last:-0} + 1))
}

# emit STATE MESSAGE DETAILS: status, then event.
emit() {
  at=$(now)
  body="\"message\":\"$(escape "$2")\",\"boot_id\":\"$boot_id\""
  [ -n "$3" ] && body="$body,\"details\":$3"
  write_file "$status_path" "{\"schema_version\":1,\"state\":\"$1\",\"updated_at\":\"$at\",$body}"
  is_plain "$events_path" || return 0
  printf '%s\n' "{\"schema_version\":1,\"seq\":$(next_seq),\"timestamp\":\"$at\",\"kind\":\"$1\",$body}" >>"$events_path"
  sync "$events_path" 2>/dev/null || sync
}

# finish STATE EXIT_CODE MESSAGE REASON: the last word.
finish() {
  details="{\"exit_code\":$2"
  extra=
  if [ -n "$4" ]; then
    details="$details,\"failure_reason\":\"$4\""
    extra=",\"details\":{\"failure_reason\":\"$4\"}"
  fi
  emit "$1" "$3" "$details}"
  write_file "$result_path" "{\"schema_version\":1,\"status\":\"$1\",\"finished_at\":\"$(now)\",\"message\":\"$(escape "$3")\",\"exit_code\":$2$extra}"
}

# The request's own strictness: exactly the four known fields. Prints timeout_secs, run_as_root, then the command.
decode_request() {
  awk '
    function fail(why) { print why > "/dev/stderr"; failed = 1; exit 2 }
    function space() { while (pos <= length(text) && index(" \t\r\n", substr(text, pos, 1)) > 0) pos++ }
    function hex4(at,   i, value, digit) {
      value = 0
      for (i = 0; i < 4; i++) {
        digit = index("0123456789abcdef", tolower(substr(text, at + i, 1))) - 1
        if (digit < 0 || at + i > length(text)) fail("a \\u escape is malformed")
        value = value * 16 + digit
      }
      return value
    }
    function utf8(code) {
      if (code == 0) fail("command must not contain NUL")
      if (code < 128) return sprintf("%c", code)
      if (code < 2048) return sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
      if (code < 65536) return sprintf("%c%c%c", 224 + int(code / 4096), 128 + int(code / 64) % 64, 128 + code % 64)
      return sprintf("%c%c%c%c", 240 + int(code / 262144), 128 + int(code / 4096) % 64, 128 + int(code / 64) % 64, 128 + code % 64)
    }
    function string(   out, c, code, low) {
      if (substr(text, pos, 1) != "\"") fail("is no JSON object of the known form")
      out = ""
      for (pos++; ; pos++) {
        if (pos > length(text)) fail("is no JSON")
        c = substr(text, pos, 1)
        if (c == "\"") { pos++; return out }
        if (c != "\\") { out = out c; continue }
        pos++
        c = substr(text, pos, 1)
        if (c == "n") out = out "\n"
        else if (c == "t") out = out "\t"
        else if (c == "r") out = out "\r"
        else if (c == "b") out = out "\b"
        else if (c == "f") out = out "\f"
        else if (c == "\"" || c == "\\" || c == "/") out = out c
        else if (c == "u") {
          code = hex4(pos + 1); pos += 4
          if (code >= 55296 && code <= 56319 && substr(text, pos + 1, 2) == "\\u") {
            low = hex4(pos + 3)
            if (low >= 56320 && low <= 57343) { code = 65536 + (code - 55296) * 1024 + (low - 56320); pos += 6 }
          }
          out = out utf8(code)
        } else fail("has an unknown escape")
      }
    }
    function bare(   from) {
      from = pos
      while (pos <= length(text) && substr(text, pos, 1) ~ /[a-z0-9.+-]/) pos++
      return substr(text, from, pos - from)
    }
    { text = text (NR > 1 ? "\n" : "") $0 }
    END {
      if (failed) exit 2
      pos = 1; space()
      if (substr(text, pos, 1) != "{") fail("is no JSON object")
      pos++
      for (;;) {
        space(); key = string(); space()
        if (substr(text, pos, 1) != ":") fail("is no JSON")
        pos++; space()
        if (key in seen) fail("has " key " twice")
        seen[key] = 1
        if (key == "command") command = string()
        else if (key == "schema_version") version = bare()
        else if (key == "timeout_secs") timeout = bare()
        else if (key == "run_as_root") root = bare()
        else fail("has the unknown field " key)
        space()
        c = substr(text, pos, 1); pos++
        if (c == "}") break
        if (c != ",") fail("is no JSON")
      }
      space()
      if (pos <= length(text)) fail("has something after its end")
      if (version != "2") fail("schema_version is " version ", expected 2")
      if (timeout !~ /^[1-9][0-9]*$/ || length(timeout) > 6) fail("timeout_secs must be a positive number of seconds")
      if (root != "true" && root != "false") fail("run_as_root must be true or false")
      if (command !~ /[^ \t\r\n]/) fail("command must not be empty")
      printf "%s\n%s\n%s", timeout, root, command
    }' "$1"
}

stop_child() {
  ended=terminated
  [ -n "$child" ] && kill -TERM -"$child" 2>/dev/null
}

# run_once COMMAND TIMEOUT_SECS AS_ROOT: sets code.
run_once() {
  for log in stdout stderr; do is_plain "$logs_dir/$log.log" || rm -rf "$logs_dir/$log.log"; done
  if [ "$3" = false ] && [ "$(id -u)" = 0 ]; then
    user=${PYLON_RUN_USER:-nobody}
    # That of busybox knows no users, and the su of util-linux starts a session of its own.
    if setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups true 2>/dev/null; then
      setsid setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups sh -c "$1" </dev/null >>"$logs_dir/stdout.log" 2>>"$logs_dir/stderr.log" &
    else
      setsid su -s /bin/sh "$user" -c "$1" </dev/null >>"$logs_dir/stdout.log" 2>>"$logs_dir/stderr.log" &
    fi
  else
    setsid sh -c "$1" </dev/null >>"$logs_dir/stdout.log" 2>>"$logs_dir/stderr.log" &
  fi
  child=$!
  # Told to stop before the child was known.
  [ "$ended" = terminated ] && kill -TERM -"$child" 2>/dev/null
  (
    fired=0
    trap 'kill "$nap" 2>/dev/null; exit "$fired"' TERM
    # A command that had ended before this trap was set may have been told of in vain.
    kill -0 "$child" 2>/dev/null || exit 0
    sleep "$2" &
    nap=$!
    wait "$nap"
    fired=9
    kill -TERM -"$child" 2>/dev/null
    sleep 3 &
    nap=$!
    wait "$nap"
    kill -KILL -"$child" 2>/dev/null
    exit 9
  ) </dev/null >/dev/null 2>&1 &
  watchdog=$!
  # A signal interrupts wait: wait again until the child has really ended.
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  kill -TERM "$watchdog" 2>/dev/null
  # What the command left running in its group ends with it.
  kill -KILL -"$child" 2>/dev/null
  child=
  wait "$watchdog"
  [ $? -eq 9 ] && ended=timeout
  return 0
}

request_mode() {
  decoded=$(decode_request "$request" 2>"$state_dir/.error" && echo x)
  if [ $? -ne 0 ] || [ -z "$decoded" ]; then
    finish failed 2 "Guest bootstrap failed: $request: $(cat "$state_dir/.error")" guest_bootstrap_failed
    rm -f "$state_dir/.error"
    exit 2
  fi
  rm -f "$state_dir/.error"
  # The last character guards newlines that end the command.
  decoded=${decoded%x}
  decoded=${decoded%
}
  timeout=${decoded%%
*}
  decoded=${decoded#*
}
  as_root=${decoded%%
*}
  command=${decoded#*
}
  PYLON_ARTIFACTS_DIR=$state_dir/artifacts
  export PYLON_ARTIFACTS_DIR
  tries=0
  while :; do
    emit starting 'running the command' "{\"command\":\"$(escape "$command" 200)\",\"run_as_root\":$as_root}"
    run_once "$command" "$timeout" "$as_root"
    [ -n "$ended" ] && break
    case $restart in
      always) ;;
      on_failure) [ "$code" -ne 0 ] || break ;;
      *) break ;;
    esac
    tries=$((tries + 1))
    [ "$tries" -le 5 ] || break
    sleep 1
  done
  for log in stdout stderr; do
    if is_plain "$logs_dir/$log.log" && is_plain "$logs_dir/guest.log"; then cat "$logs_dir/$log.log" >>"$logs_dir/guest.log" 2>/dev/null; fi
  done
  case $ended in
    timeout) finish failed 124 "the command ran over $timeout s and was stopped" timeout; exit 124 ;;
    terminated) finish failed 143 'the guest was told to stop' terminated; exit 143 ;;
  esac
  if [ "$code" -eq 0 ]; then finish completed 0 'the command completed' ''; else finish failed "$code" "the command exited with $code" ''; fi
  exit "$code"
}

supervise_mode() {
  "$@" &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null' TERM INT HUP
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break
  done
  [ -f "$result_path" ] && exit "$code"
  [ "$code" -ne 0 ] || code=1
  finish failed "$code" "the guest ended with $code and left no result" guest_died
  exit "$code"
}

mkdir -p "$state_dir" "$logs_dir" "$state_dir/artifacts" && rm -rf "$result_path" "$state_dir/.error" || {
  echo "guest.sh: no result is left: make $state_dir writable" >&2
  exit 2
}
if [ "$mode" = supervise ]; then
  [ $# -gt 0 ] || { echo 'guest.sh: --supervise needs a command after --' >&2; exit 2; }
  supervise_mode "$@"
fi
trap 'stop_child' TERM INT HUP
rm -rf "$logs_dir/stdout.log" "$logs_dir/stderr.log"
emit booted 'the guest runs' ''
request_mode
