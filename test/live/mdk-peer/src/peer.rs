//! A Marmot peer on mdk with one relay: what it does when told, and what it does by itself about welcomes and group events.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mdk_core::MDK;
use mdk_core::callback::{MdkCallback, RollbackInfo};
use mdk_core::prelude::*;
use mdk_memory_storage::MdkMemoryStorage;
use nostr::nips::nip59::UnwrappedGift;
use nostr::{Event, EventBuilder, EventId, JsonUtil, Keys, Kind, PublicKey, RelayUrl, Tag, UnsignedEvent};
use serde_json::{Value, json};

use crate::relay::Relay;

pub type Answer<T> = Result<T, String>;

const WRAPS: &str = "wraps";
const KEY_PACKAGE_KINDS: [u16; 2] = [30443, 443];
const ECHO_TIMEOUT: Duration = Duration::from_secs(10);

pub fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// What mdk took back for a better commit, until it is dealt with.
#[derive(Debug, Default)]
struct Rollbacks(Mutex<Vec<RollbackInfo>>);

impl MdkCallback for Rollbacks {
    fn on_rollback(&self, info: &RollbackInfo) {
        self.0.lock().unwrap().push(info.clone());
    }
}

/// Something that this peer said, and in which epoch it was last encrypted.
struct Said {
    group: GroupId,
    epoch: u64,
    rumor: UnsignedEvent,
}

pub struct Peer {
    pub keys: Keys,
    pub mdk: MDK<MdkMemoryStorage>,
    relay: Relay,
    relay_url: RelayUrl,
    seen: HashSet<EventId>,
    own: HashSet<EventId>,
    /// Commits that the relay took and that have not come back from it: merged when they do, so that mdk can still undo them.
    unmerged: HashSet<EventId>,
    rollbacks: Arc<Rollbacks>,
    said: Vec<Said>,
    /// Rumors that were told: what is sent again after a rollback is the same one.
    told: HashSet<EventId>,
    /// By subscription, what the relay had stored, until its EOSE: it comes newest first.
    stored: HashMap<String, Vec<Event>>,
    tell: fn(Value),
}

impl Peer {
    pub fn new(url: &str, keys: Keys, tell: fn(Value)) -> Answer<Self> {
        let mut relay = Relay::connect(url)?;
        relay.subscribe(WRAPS, json!({"kinds": [1059], "#p": [keys.public_key().to_hex()]}))?;
        let rollbacks = Arc::new(Rollbacks::default());
        Ok(Self {
            keys,
            mdk: MDK::builder(MdkMemoryStorage::default()).with_callback(rollbacks.clone()).build(),
            rollbacks,
            said: Vec::new(),
            told: HashSet::new(),
            relay,
            relay_url: RelayUrl::parse(url).map_err(words)?,
            seen: HashSet::new(),
            own: HashSet::new(),
            unmerged: HashSet::new(),
            stored: HashMap::from([(WRAPS.into(), Vec::new())]),
            tell,
        })
    }

    // What it is told.

    /// One key package under the kind that is asked for; each call makes a new one.
    pub fn publish_key_package(&mut self, kind: u16, relays: Vec<RelayUrl>) -> Answer<Event> {
        let data = self
            .mdk
            .create_key_package_for_event(&self.keys.public_key(), self.relays(relays))
            .map_err(words)?;
        let tags = if kind == 443 { data.tags_443 } else { data.tags_30443 };
        let event = EventBuilder::new(Kind::Custom(kind), data.content)
            .tags(tags)
            .sign_with_keys(&self.keys)
            .map_err(words)?;
        self.relay.publish(&event)?;
        Ok(event)
    }

    /// The newest key package of somebody that the relay has.
    pub fn key_package_of(&mut self, pubkey: &PublicKey) -> Answer<Event> {
        let found = self
            .relay
            .fetch(json!({"kinds": KEY_PACKAGE_KINDS, "authors": [pubkey.to_hex()]}))?;
        found
            .into_iter()
            .max_by_key(|event| event.created_at)
            .ok_or(format!("the relay has no key package of {pubkey}"))
    }

    /// The group's first commit is nobody's business; the invited get their welcomes.
    pub fn create_group(&mut self, name: &str, key_packages: Vec<Event>, relays: Vec<RelayUrl>, admins: Vec<PublicKey>) -> Answer<Value> {
        let admins = if admins.is_empty() { vec![self.keys.public_key()] } else { admins };
        let config = NostrGroupConfigData::new(name.into(), String::new(), None, None, None, self.relays(relays), admins);
        let made = self
            .mdk
            .create_group(&self.keys.public_key(), key_packages.clone(), config)
            .map_err(words)?;
        let wraps = self.welcome(&key_packages, made.welcome_rumors)?;
        self.follow(&made.group)?;
        let mut facts = self.facts(&made.group.mls_group_id)?;
        facts["welcome_wraps"] = json!(wraps);
        Ok(facts)
    }

    pub fn send(&mut self, group: &GroupId, kind: u16, content: &str, tags: Vec<Tag>) -> Answer<Value> {
        let mut rumor = EventBuilder::new(Kind::Custom(kind), content)
            .tags(tags)
            .build(self.keys.public_key());
        rumor.ensure_id();
        let event = self.say(group, rumor.clone())?;
        Ok(json!({"event_id": event.id.to_hex(), "rumor_id": rumor.id().to_hex()}))
    }

    fn say(&mut self, group: &GroupId, rumor: UnsignedEvent) -> Answer<Event> {
        let event = self.mdk.create_message(group, rumor.clone(), None).map_err(words)?;
        let epoch = self.mdk.get_group(group).map_err(words)?.ok_or("no such group")?.epoch;
        self.said.push(Said {
            group: group.clone(),
            epoch,
            rumor,
        });
        self.publish(&event)?;
        Ok(event)
    }

    pub fn self_update(&mut self, group: &GroupId) -> Answer<Value> {
        let update = self.mdk.self_update(group).map_err(words)?;
        self.commit(update, &[])
    }

    pub fn rename(&mut self, group: &GroupId, name: &str) -> Answer<Value> {
        let update = self
            .mdk
            .update_group_data(group, NostrGroupDataUpdate::new().name(name))
            .map_err(words)?;
        self.commit(update, &[])
    }

    pub fn add(&mut self, group: &GroupId, key_package: Event) -> Answer<Value> {
        let invited = [key_package];
        let update = self.mdk.add_members(group, &invited).map_err(words)?;
        self.commit(update, &invited)
    }

    pub fn remove(&mut self, group: &GroupId, pubkey: PublicKey) -> Answer<Value> {
        let update = self.mdk.remove_members(group, &[pubkey]).map_err(words)?;
        self.commit(update, &[])
    }

    /// A proposal, which somebody else must commit.
    pub fn leave(&mut self, group: &GroupId) -> Answer<Value> {
        let update = self.mdk.leave_group(group).map_err(words)?;
        self.publish(&update.evolution_event)?;
        Ok(json!({"event_id": update.evolution_event.id.to_hex()}))
    }

    /// The group whose events carry this `h` tag.
    pub fn group(&self, nostr_group_id: &str) -> Answer<GroupId> {
        let groups = self.mdk.get_groups().map_err(words)?;
        let found = groups.into_iter().find(|group| hex(&group.nostr_group_id) == nostr_group_id);
        Ok(found.ok_or(format!("no group {nostr_group_id}"))?.mls_group_id)
    }

    pub fn facts(&self, id: &GroupId) -> Answer<Value> {
        let group = self.mdk.get_group(id).map_err(words)?.ok_or("no such group")?;
        let members: Vec<String> = self.mdk.get_members(id).map_err(words)?.iter().map(PublicKey::to_hex).collect();
        let admins: Vec<String> = group.admin_pubkeys.iter().map(PublicKey::to_hex).collect();
        Ok(json!({
            "group_id": hex(id.as_slice()), "nostr_group_id": hex(&group.nostr_group_id), "name": group.name, "epoch": group.epoch,
            "members": members, "admins": admins,
        }))
    }

    // What it does by itself.

    /// Takes one frame of the relay, if there is one.
    pub fn turn(&mut self) -> Answer<()> {
        let Some(frame) = self.relay.next()? else { return Ok(()) };
        let subscription = frame[1].as_str().unwrap_or_default().to_owned();
        match frame[0].as_str() {
            Some("EVENT") => {
                let event = Event::from_json(frame[2].to_string()).map_err(words)?;
                match self.stored.get_mut(&subscription) {
                    Some(stored) => stored.push(event),
                    None => self.take(event),
                }
            }
            Some("EOSE") => {
                let mut stored = self.stored.remove(&subscription).unwrap_or_default();
                stored.sort_by_key(|event| (event.created_at, event.id));
                stored.into_iter().for_each(|event| self.take(event));
            }
            _ => {}
        }
        Ok(())
    }

    /// An event of the relay; what can't be used is told, and is no failure.
    fn take(&mut self, event: Event) {
        if !self.seen.insert(event.id) {
            return;
        }
        let done = event.verify().map_err(words).and_then(|()| match event.kind {
            Kind::GiftWrap => self.on_wrap(&event),
            _ => self.on_group_event(&event),
        });
        if let Err(why) = done {
            (self.tell)(json!({"event": "refused", "event_id": event.id.to_hex(), "why": why}));
        }
    }

    fn on_wrap(&mut self, wrap: &Event) -> Answer<()> {
        let gift = pollster::block_on(UnwrappedGift::from_gift_wrap(&self.keys, wrap)).map_err(words)?;
        if gift.rumor.kind != Kind::MlsWelcome {
            return Ok(());
        }
        let welcome = self.mdk.process_welcome(&wrap.id, &gift.rumor).map_err(words)?;
        self.mdk.accept_welcome(&welcome).map_err(words)?;
        let group = self
            .mdk
            .get_group(&welcome.mls_group_id)
            .map_err(words)?
            .ok_or("the group of the welcome is not there")?;
        self.follow(&group)?;
        let mut facts = self.facts(&welcome.mls_group_id)?;
        facts["event"] = json!("joined");
        facts["welcomer"] = json!(gift.sender.to_hex());
        (self.tell)(facts);
        Ok(())
    }

    fn on_group_event(&mut self, event: &Event) -> Answer<()> {
        let result = self.mdk.process_message(event);
        self.unmerged.remove(&event.id);
        self.after_rollbacks()?;
        match result.map_err(words)? {
            MessageProcessingResult::ApplicationMessage(message) => self.on_message(event, &message),
            MessageProcessingResult::Commit { mls_group_id } => self.on_commit(event, &mls_group_id),
            MessageProcessingResult::Proposal(update) => {
                (self.tell)(
                    json!({"event": "proposal", "event_id": event.id.to_hex(), "committed_by": update.evolution_event.id.to_hex()}),
                );
                self.publish(&update.evolution_event)
            }
            MessageProcessingResult::PendingProposal { .. } | MessageProcessingResult::ExternalJoinProposal { .. } => {
                (self.tell)(json!({"event": "proposal", "event_id": event.id.to_hex()}));
                Ok(())
            }
            MessageProcessingResult::IgnoredProposal { reason, .. } => Err(reason),
            MessageProcessingResult::Unprocessable { .. } if self.own.contains(&event.id) => Ok(()),
            MessageProcessingResult::Unprocessable { .. } => Err("mdk can't process it".into()),
            MessageProcessingResult::PreviouslyFailed => Err("it failed before".into()),
        }
    }

    /// Says again what nobody can read any more, and reads again what could not be read before.
    fn after_rollbacks(&mut self) -> Answer<()> {
        let infos = std::mem::take(&mut *self.rollbacks.0.lock().unwrap());
        for info in infos {
            (self.tell)(json!({"event": "rollback", "epoch": info.target_epoch, "event_id": info.new_head_event.to_hex()}));
            let (lost, kept) = std::mem::take(&mut self.said)
                .into_iter()
                .partition(|said| said.group == info.group_id && said.epoch > info.target_epoch);
            self.said = kept;
            let lost: Vec<Said> = lost;
            for Said { group, rumor, .. } in lost {
                self.say(&group, rumor)?;
            }
            for id in &info.messages_needing_refetch {
                self.seen.remove(id);
            }
            let group = self.mdk.get_group(&info.group_id).map_err(words)?.ok_or("no such group")?;
            self.follow(&group)?;
        }
        Ok(())
    }

    fn on_message(&mut self, event: &Event, message: &message_types::Message) -> Answer<()> {
        if self.own.contains(&event.id) || !self.told.insert(message.id) {
            return Ok(());
        }
        let group = self.mdk.get_group(&message.mls_group_id).map_err(words)?.ok_or("no such group")?;
        (self.tell)(json!({
            "event": "message", "nostr_group_id": hex(&group.nostr_group_id), "event_id": event.id.to_hex(), "rumor_id": message.id.to_hex(),
            "sender": message.pubkey.to_hex(), "kind": message.kind.as_u16(), "content": message.content, "epoch": message.epoch,
        }));
        Ok(())
    }

    fn on_commit(&mut self, event: &Event, group: &GroupId) -> Answer<()> {
        let state = self.mdk.get_group(group).map_err(words)?.ok_or("no such group")?.state;
        let mut facts = if state == group_types::GroupState::Inactive {
            json!({"event": "left"})
        } else {
            self.facts(group)?
        };
        if facts["event"].is_null() {
            facts["event"] = json!("commit");
        }
        facts["event_id"] = json!(event.id.to_hex());
        facts["own"] = json!(self.own.contains(&event.id));
        (self.tell)(facts);
        Ok(())
    }

    /// Publishes a commit, and merges it when it comes back; only then is who was added welcomed.
    fn commit(&mut self, update: UpdateGroupResult, invited: &[Event]) -> Answer<Value> {
        let event = update.evolution_event;
        if let Err(why) = self.publish(&event) {
            self.mdk.clear_pending_commit(&update.mls_group_id).map_err(words)?;
            return Err(why);
        }
        self.unmerged.insert(event.id);
        let end = Instant::now() + ECHO_TIMEOUT;
        while self.unmerged.contains(&event.id) {
            if Instant::now() > end {
                return Err("the relay did not send the commit back".into());
            }
            self.turn()?;
        }
        let wraps = self.welcome(invited, update.welcome_rumors.unwrap_or_default())?;
        let mut facts = self.facts(&update.mls_group_id)?;
        facts["event_id"] = json!(event.id.to_hex());
        facts["welcome_wraps"] = json!(wraps);
        Ok(facts)
    }

    fn welcome(&mut self, invited: &[Event], rumors: Vec<UnsignedEvent>) -> Answer<Vec<String>> {
        let mut wraps = Vec::new();
        for (key_package, rumor) in invited.iter().zip(rumors) {
            let wrap = pollster::block_on(EventBuilder::gift_wrap(&self.keys, &key_package.pubkey, rumor, [])).map_err(words)?;
            self.publish(&wrap)?;
            wraps.push(wrap.id.to_hex());
        }
        Ok(wraps)
    }

    fn publish(&mut self, event: &Event) -> Answer<()> {
        self.own.insert(event.id);
        self.relay.publish(event)
    }

    fn follow(&mut self, group: &group_types::Group) -> Answer<()> {
        let id = hex(&group.nostr_group_id);
        self.stored.insert(id.clone(), Vec::new());
        self.relay.subscribe(&id, json!({"kinds": [445], "#h": [id]}))
    }

    fn relays(&self, given: Vec<RelayUrl>) -> Vec<RelayUrl> {
        if given.is_empty() { vec![self.relay_url.clone()] } else { given }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
