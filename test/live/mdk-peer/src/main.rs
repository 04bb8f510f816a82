//! A Marmot peer on mdk for tests: `mdk-peer ws://127.0.0.1:PORT`. One JSON command a line on stdin, `{"id":1,"cmd":"identity"}`;
//! one JSON line on stdout for each, `{"id":1,"ok":{...}}` or `{"id":1,"error":"words"}`, and `{"event":...}` for all that came.
//! MDK_PEER_SECRET is its Nostr key as hex; else it makes one.

mod peer;
mod relay;
mod secrets;

use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use nostr::{Event, JsonUtil, Keys, PublicKey, RelayUrl, Tag};
use serde_json::{Value, json};

use crate::peer::{Answer, Peer, words};

fn main() {
    let url = std::env::args().nth(1).unwrap_or_default();
    if let Err(why) = run(&url) {
        eprintln!("mdk-peer: {why}");
        std::process::exit(1);
    }
}

fn run(url: &str) -> Answer<()> {
    let keys = match std::env::var("MDK_PEER_SECRET") {
        Ok(secret) => Keys::parse(&secret).map_err(words)?,
        Err(_) => Keys::generate(),
    };
    let mut peer = Peer::new(url, keys, say)?;
    let lines = lines_of_stdin();
    loop {
        peer.turn()?;
        let line = match lines.try_recv() {
            Ok(line) => line,
            Err(TryRecvError::Empty) => continue,
            Err(TryRecvError::Disconnected) => return Ok(()),
        };
        let command: Value = serde_json::from_str(&line).map_err(words)?;
        let id = command["id"].clone();
        if command["cmd"] == "quit" {
            say(json!({"id": id, "ok": {}}));
            return Ok(());
        }
        match answer(&mut peer, &command) {
            Ok(ok) => say(json!({"id": id, "ok": ok})),
            Err(error) => say(json!({"id": id, "error": error})),
        }
    }
}

fn answer(peer: &mut Peer, command: &Value) -> Answer<Value> {
    match text(command, "cmd")? {
        "identity" => Ok(json!({"pubkey": peer.keys.public_key().to_hex()})),
        "publish_key_package" => {
            let kind = number(command, "kind", 30443)?;
            let event = peer.publish_key_package(kind, relays(command)?)?;
            Ok(json!({"event_id": event.id.to_hex(), "kind": kind, "event": json_of(&event)?}))
        }
        "create_group" => {
            let invited = key_packages(peer, command)?;
            let admins = list(command, "admins", |admin| PublicKey::from_hex(admin).map_err(words))?;
            peer.create_group(text(command, "name")?, invited, relays(command)?, admins)
        }
        "send" => {
            let group = group(peer, command)?;
            let tags = command["tags"].as_array().cloned().unwrap_or_default();
            let tags = tags
                .into_iter()
                .map(|tag| serde_json::from_value::<Tag>(tag).map_err(words))
                .collect::<Answer<Vec<Tag>>>()?;
            peer.send(&group, number(command, "kind", 9)?, text(command, "content")?, tags)
        }
        "self_update" => group(peer, command).and_then(|group| peer.self_update(&group)),
        "rename" => group(peer, command).and_then(|group| peer.rename(&group, text(command, "name")?)),
        "add" => {
            let group = group(peer, command)?;
            let invited = key_packages(peer, command)?.pop().ok_or("whom?")?;
            peer.add(&group, invited)
        }
        "remove" => {
            let pubkey = PublicKey::from_hex(text(command, "pubkey")?).map_err(words)?;
            group(peer, command).and_then(|group| peer.remove(&group, pubkey))
        }
        "members" => group(peer, command).and_then(|group| peer.facts(&group)),
        "leave" => group(peer, command).and_then(|group| peer.leave(&group)),
        "group_secrets" => group(peer, command).and_then(|group| secrets::of_group(peer, &group)),
        "key_package_secrets" => secrets::of_key_package(peer, &event(&command["key_package_event"])?),
        other => Err(format!("there is no command {other}")),
    }
}

/// Who is invited: `key_package_event` as it stands, or `pubkey` (one or more), whose newest the relay has.
fn key_packages(peer: &mut Peer, command: &Value) -> Answer<Vec<Event>> {
    if !command["key_package_event"].is_null() {
        return Ok(vec![event(&command["key_package_event"])?]);
    }
    let pubkeys = match &command["pubkey"] {
        Value::String(one) => vec![PublicKey::from_hex(one).map_err(words)?],
        _ => list(command, "pubkey", |pubkey| PublicKey::from_hex(pubkey).map_err(words))?,
    };
    pubkeys.iter().map(|pubkey| peer.key_package_of(pubkey)).collect()
}

fn group(peer: &Peer, command: &Value) -> Answer<mdk_core::GroupId> {
    peer.group(text(command, "nostr_group_id")?)
}

fn event(value: &Value) -> Answer<Event> {
    Event::from_json(value.to_string()).map_err(words)
}

fn json_of(event: &Event) -> Answer<Value> {
    serde_json::from_str(&event.as_json()).map_err(words)
}

fn text<'a>(command: &'a Value, name: &str) -> Answer<&'a str> {
    command[name].as_str().ok_or(format!("{name} is missing"))
}

fn number(command: &Value, name: &str, default: u16) -> Answer<u16> {
    match &command[name] {
        Value::Null => Ok(default),
        value => value
            .as_u64()
            .and_then(|number| u16::try_from(number).ok())
            .ok_or(format!("{name} is no kind")),
    }
}

fn relays(command: &Value) -> Answer<Vec<RelayUrl>> {
    list(command, "relays", |url| RelayUrl::parse(url).map_err(words))
}

fn list<T>(command: &Value, name: &str, read: impl Fn(&str) -> Answer<T>) -> Answer<Vec<T>> {
    let items = command[name].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| read(item.as_str().unwrap_or_default())).collect()
}

fn say(line: Value) {
    let mut stdout = std::io::stdout().lock();
    // Who does not listen any more has ended the test.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn lines_of_stdin() -> Receiver<String> {
    let (lines, heard) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                return;
            }
        }
    });
    heard
}
