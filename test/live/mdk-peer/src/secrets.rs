//! Secrets of a peer that only a capture for fixtures asks for: with them somebody else can take its place.

use nostr::Event;
use openmls::prelude::{Ciphersuite, KeyPackageBundle, OpenMlsProvider};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::storage::StorageProvider;
use serde_json::{Value, json};

use mdk_core::GroupId;

use crate::peer::{Answer, Peer, hex, words};

const EXPORTED_BYTES: usize = 32;

/// The private keys of a key package that this peer published, each 32 bytes as hex.
pub fn of_key_package(peer: &Peer, event: &Event) -> Answer<Value> {
    let key_package = peer.mdk.parse_key_package(event).map_err(words)?;
    let reference = key_package.hash_ref(peer.mdk.provider.crypto()).map_err(words)?;
    let storage = peer.mdk.provider.storage();
    let bundle: Option<KeyPackageBundle> = storage.key_package(&reference).map_err(words)?;
    let public = key_package.leaf_node().signature_key().as_slice();
    let scheme = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519.signature_algorithm();
    let signature = SignatureKeyPair::read(storage, public, scheme).ok_or("no signature key")?;
    let bundle = serde_json::to_value(bundle.ok_or("no such key package")?).map_err(words)?;
    let signature = serde_json::to_value(signature).map_err(words)?;
    Ok(json!({
        "init_private": bytes(&bundle["private_init_key"]["vec"])?,
        "encryption_private": bytes(&bundle["private_encryption_key"]["key"]["vec"])?,
        "signature_private": bytes(&signature["private"])?,
        "signature_public": bytes(&signature["public"])?,
    }))
}

/// Bytes that serde wrote as a list of numbers, as hex.
fn bytes(list: &Value) -> Answer<String> {
    Ok(hex(&serde_json::from_value::<Vec<u8>>(list.clone()).map_err(words)?))
}

/// The key of the 445 events of the epoch that the group is in now.
pub fn of_group(peer: &Peer, id: &GroupId) -> Answer<Value> {
    let group = peer.mdk.load_mls_group(id).map_err(words)?.ok_or("no such group")?;
    let secret = group
        .export_secret(peer.mdk.provider.crypto(), "marmot", b"group-event", EXPORTED_BYTES)
        .map_err(words)?;
    Ok(json!({"epoch": group.epoch().as_u64(), "group_event": hex(&secret), "authenticator": hex(group.epoch_authenticator().as_slice())}))
}
