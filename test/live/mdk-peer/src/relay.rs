//! One relay over a plain websocket: publishes until its OK, asks until its EOSE, and keeps what came meanwhile.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nostr::{Event, JsonUtil};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

const READ_TIMEOUT: Duration = Duration::from_millis(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Relay {
    socket: WebSocket<TcpStream>,
    inbox: VecDeque<Value>,
    asked: u32,
}

impl Relay {
    /// `url` is `ws://HOST:PORT`.
    pub fn connect(url: &str) -> Result<Self, String> {
        let address = url.strip_prefix("ws://").ok_or("the relay's address must begin with ws://")?;
        let address = address.split('/').next().unwrap_or_default();
        let stream = TcpStream::connect(address).map_err(|e| format!("{url}: {e}"))?;
        let (socket, _) = tungstenite::client(url, stream).map_err(|e| format!("{url}: {e}"))?;
        socket.get_ref().set_read_timeout(Some(READ_TIMEOUT)).map_err(|e| e.to_string())?;
        Ok(Self {
            socket,
            inbox: VecDeque::new(),
            asked: 0,
        })
    }

    pub fn subscribe(&mut self, id: &str, filter: Value) -> Result<(), String> {
        self.say(json!(["REQ", id, filter]))
    }

    /// Returns once the relay took the event; its refusal is the error.
    pub fn publish(&mut self, event: &Event) -> Result<(), String> {
        let id = event.id.to_hex();
        self.say(Value::Array(vec![
            "EVENT".into(),
            serde_json::from_str(&event.as_json()).map_err(|e| e.to_string())?,
        ]))?;
        let ok = self.wait("OK", &id, |_| false)?;
        if ok[2] == Value::Bool(true) {
            Ok(())
        } else {
            Err(format!("the relay refused the event: {}", ok[3]))
        }
    }

    /// What the relay holds now that matches.
    pub fn fetch(&mut self, filter: Value) -> Result<Vec<Event>, String> {
        self.asked += 1;
        let id = format!("fetch-{}", self.asked);
        self.subscribe(&id, filter)?;
        let mut found = Vec::new();
        let wanted = id.clone();
        self.wait("EOSE", &id, |frame| {
            let is_found = frame[0] == "EVENT" && frame[1] == wanted.as_str();
            if is_found {
                found.extend(Event::from_json(frame[2].to_string()));
            }
            is_found
        })?;
        self.say(json!(["CLOSE", id]))?;
        Ok(found)
    }

    /// The next frame, if one came within some milliseconds.
    pub fn next(&mut self) -> Result<Option<Value>, String> {
        match self.inbox.pop_front() {
            Some(frame) => Ok(Some(frame)),
            None => self.read(),
        }
    }

    /// `takes` says whether it used a frame that came meanwhile; the others stay for `next`.
    fn wait(&mut self, kind: &str, id: &str, mut takes: impl FnMut(&Value) -> bool) -> Result<Value, String> {
        let end = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < end {
            let Some(frame) = self.read()? else { continue };
            if frame[0] == kind && frame[1] == id {
                return Ok(frame);
            }
            if !takes(&frame) {
                self.inbox.push_back(frame);
            }
        }
        Err(format!("the relay gave no {kind} in time"))
    }

    fn read(&mut self) -> Result<Option<Value>, String> {
        match self.socket.read() {
            Ok(Message::Text(text)) => serde_json::from_str(&text).map(Some).map_err(|e| e.to_string()),
            Ok(Message::Close(_)) => Err("the relay closed the connection".into()),
            Ok(_) => Ok(None),
            Err(tungstenite::Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(e) => Err(e.to_string()),
        }
    }

    fn say(&mut self, frame: Value) -> Result<(), String> {
        self.socket.send(Message::text(frame.to_string())).map_err(|e| e.to_string())
    }
}
