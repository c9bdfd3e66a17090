//! What a single state machine does with events that a simulation of correct nodes does not bring.

use std::sync::Arc;

use super::*;
use crate::announcement::{
    Announcement, Authority, COUNTER_MAX, ModelRate, NodeInfo, NodeState, RevocationVerdict,
    Signature, Signed,
};
use crate::{MeshId, NodeId, Role};

const MESH: MeshId = MeshId::from_bytes([7; 32]);

/// The wall clock at the start.
const UNIX_MS: u64 = 1_800_000_000_000;

/// Believes every signature.
struct Credulous;

impl Authority for Credulous {
    fn sign(&self, _: &[u8]) -> Signature {
        [0; 64]
    }

    fn verify(&self, _: NodeId, _: &[u8], _: &Signature) -> bool {
        true
    }

    fn is_expelled(&self, _: NodeId) -> bool {
        false
    }

    fn accept_revocation(&mut self, blob: &[u8]) -> RevocationVerdict {
        match blob {
            b"known" => RevocationVerdict::Known,
            b"full" => RevocationVerdict::Full,
            b"false" => RevocationVerdict::False,
            _ => RevocationVerdict::Added,
        }
    }
}

fn node(number: u64) -> NodeId {
    let mut bytes = [0; 32];
    // The first byte decides about the part of the table.
    bytes[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    NodeId::from_bytes(bytes)
}

const ME: u64 = 1;
const PEER: u64 = 2;

/// A serving node at time 0 with one connected member.
fn state() -> State {
    let config = Config {
        me: node(ME),
        mesh: MESH,
        role: Role::Serve,
        unix_ms: UNIX_MS,
        seed: 1,
    };
    let mut state = State::new(config, Box::new(Credulous));
    let info = NodeInfo {
        state: NodeState::Serving,
        ..NodeInfo::default()
    };
    let started = Event::Started {
        bootstrap: Vec::new(),
        revocations: Vec::new(),
        info,
    };
    state.handle(started, 0);
    let connected = Event::PeerConnected {
        node: node(PEER),
        role: Role::Serve,
    };
    state.handle(connected, 0);
    state
}

fn announced(number: u64, incarnation: u64, sequence: u64) -> Fact {
    let announcement = Announcement {
        mesh: MESH,
        node: node(number),
        incarnation,
        sequence,
        ttl_ms: 240_000,
        leaving: false,
        role: Role::Serve,
        round_trips: Vec::new(),
        info: NodeInfo::default(),
    };
    Fact::Announced(Signed::new(announcement, &Credulous).unwrap())
}

#[test]
fn only_what_a_revocation_adds_is_kept_and_spread() {
    let cases: [(&[u8], bool, bool); 4] = [
        (b"new", true, false),
        (b"known", false, false),
        (b"full", false, false),
        (b"false", false, true),
    ];
    for (blob, kept, punished) in cases {
        let mut state = state();
        let effects = tell(&mut state, Fact::Revoked(blob.into()), 1);
        let is_kept = |effect: &Effect| matches!(effect, Effect::Revoked(_));
        let is_punished = |effect: &Effect| matches!(effect, Effect::Disconnect { .. });
        assert_eq!(effects.iter().any(is_kept), kept, "{blob:?}");
        assert_eq!(effects.iter().any(is_punished), punished, "{blob:?}");
        // The same once more is no news.
        let effects = tell(&mut state, Fact::Revoked(blob.into()), 2);
        assert!(!effects.iter().any(is_kept), "{blob:?}");
    }
}

fn died(number: u64, incarnation: u64) -> Fact {
    Fact::Died {
        node: node(number),
        incarnation,
    }
}

fn tell_aged(state: &mut State, fact: Fact, age_ms: u64, now_ms: u64) -> Vec<Effect> {
    let item = Item {
        fact,
        age_ms,
        urgent: false,
    };
    let message = Message::News { items: vec![item] };
    let from = node(PEER);
    state.handle(Event::Message { from, message }, now_ms)
}

fn tell(state: &mut State, fact: Fact, now_ms: u64) -> Vec<Effect> {
    tell_aged(state, fact, 0, now_ms)
}

fn own(state: &mut State) -> Arc<Signed> {
    let view = state.view();
    view.member(node(ME)).unwrap().signed().clone()
}

fn liveness(state: &State, number: u64) -> Option<Liveness> {
    state.belief(node(number)).map(|belief| belief.liveness)
}

/// What a node does that lives and has nothing to say.
fn answer(effect: &Effect) -> Option<Event> {
    match *effect {
        Effect::Connect { node, .. } => Some(Event::PeerConnected {
            node,
            role: Role::Serve,
        }),
        Effect::Send {
            to: from,
            message: Message::Ping { nonce, .. },
        } => Some(Event::Message {
            from,
            message: Message::Pong { nonce },
        }),
        _ => None,
    }
}

#[test]
fn a_word_is_renewed_before_it_runs_out_although_the_mesh_has_grown() {
    let mut state = state();
    let ttl_ms = own(&mut state).announcement().ttl_ms;
    for number in 0..1_500 {
        tell(&mut state, announced(1_000 + number, 5, 1), 10);
    }
    assert!(timing::refresh_ms(1_500) > ttl_ms, "or this shows nothing");
    for now_ms in (1_000..ttl_ms).step_by(1_000) {
        state.handle(Event::Tick, now_ms);
    }
    assert!(own(&mut state).announcement().sequence > 1);
}

#[test]
fn a_death_is_answered_by_the_next_life() {
    let mut state = state();
    let before = own(&mut state).announcement().incarnation;
    tell(&mut state, died(ME, before), 1_000);
    assert_eq!(own(&mut state).announcement().incarnation, before + 1);
    // Of a former life by a clock that was years ahead.
    let ahead = before + 200_000_000_000;
    tell(&mut state, died(ME, ahead), 120_000);
    assert_eq!(own(&mut state).announcement().incarnation, ahead + 1);
}

#[test]
fn a_claim_does_not_use_up_the_lives_of_a_node() {
    let mut state = state();
    let before = own(&mut state).announcement().incarnation;
    for claimed in [COUNTER_MAX, COUNTER_MAX - 1, COUNTER_MAX / 2 + 1] {
        tell(&mut state, died(ME, claimed), 1_000);
    }
    assert_eq!(own(&mut state).announcement().incarnation, before);
}

#[test]
fn the_departed_make_room_for_those_who_live() {
    let mut state = state();
    for number in 0..MEMBERS_MAX as u64 + 10 {
        tell(&mut state, died(1_000 + number, 5), 10);
    }
    assert_eq!(state.queue_lengths().members, MEMBERS_MAX);
    for number in 0..100 {
        tell(&mut state, announced(100_000 + number, 5, 1), 1_000);
        assert_eq!(
            liveness(&state, 100_000 + number),
            Some(Liveness::Alive),
            "{number}"
        );
    }
    assert_eq!(state.queue_lengths().members, MEMBERS_MAX);
}

#[test]
fn no_more_members_than_fit_are_believed() {
    let mut state = state();
    for number in 0..MEMBERS_MAX as u64 + 10 {
        tell(&mut state, announced(1_000 + number, 5, 1), 10);
    }
    assert!(state.queue_lengths().are_bounded());
    assert_eq!(state.queue_lengths().members, MEMBERS_MAX);
    assert_eq!(liveness(&state, ME), Some(Liveness::Alive));
}

#[test]
fn the_demand_of_clients_counts_while_they_pull() {
    let mut state = state();
    let client = node(77);
    let connected = Event::PeerConnected {
        node: client,
        role: Role::Client,
    };
    state.handle(connected, 10);
    let rate = ModelRate {
        model: "asked-for".into(),
        per_minute: 6.0,
    };
    let message = Message::Pull {
        have: None,
        root: 0,
        whole: false,
        rates: vec![rate.clone()],
    };
    let from = client;
    state.handle(Event::Message { from, message }, 20);
    let mut told_until_ms = 0;
    for now_ms in (1_000..400_000).step_by(1_000) {
        state.handle(Event::Tick, now_ms);
        let rates = own(&mut state).announcement().info.rates.clone();
        if rates == [rate.clone()] {
            told_until_ms = now_ms;
        }
    }
    assert!(told_until_ms > 60_000, "{told_until_ms}");
    assert!(told_until_ms < 300_000, "{told_until_ms}");
}

#[test]
fn what_ran_out_is_told_to_nobody_and_the_next_word_is_believed() {
    let mut state = state();
    tell(&mut state, announced(9, 5, 3), 10);
    let mut told = Vec::new();
    for now_ms in (1_000..400_000).step_by(1_000) {
        // It can be reached, and says nothing of itself.
        let mut answers = vec![Event::Tick];
        while let Some(event) = answers.pop() {
            let effects = state.handle(event, now_ms);
            answers.extend(effects.iter().filter_map(answer));
            told.extend(effects);
        }
    }
    assert_eq!(liveness(&state, 9), Some(Liveness::Dead));
    let deaths = told.iter().filter(|effect| {
        matches!(effect, Effect::Send { message: Message::News { items }, .. }
            if items.iter().any(|i| matches!(i.fact, Fact::Died { .. })))
    });
    assert_eq!(deaths.count(), 0);
    // The same word is as old elsewhere; if it seems a little younger, that is its way.
    tell_aged(&mut state, announced(9, 5, 3), 239_000, 400_000);
    assert_eq!(liveness(&state, 9), Some(Liveness::Dead));
    tell(&mut state, announced(9, 5, 4), 401_000);
    assert_eq!(liveness(&state, 9), Some(Liveness::Alive));
}

#[test]
fn strange_numbers_do_no_harm() {
    let mut state = state();
    for age_ms in [0, u64::MAX, u64::MAX / 2, DEPARTED_MS - 1, 240_000] {
        for number in [ME, PEER, 9, 10] {
            tell_aged(
                &mut state,
                announced(number, COUNTER_MAX, COUNTER_MAX),
                age_ms,
                5_000,
            );
            tell_aged(&mut state, died(number, 0), age_ms, 5_000);
            tell_aged(&mut state, died(number, COUNTER_MAX), age_ms, 5_000);
            let suspected = Fact::Suspected {
                node: node(number),
                incarnation: COUNTER_MAX,
                sequence: 0,
            };
            tell_aged(&mut state, suspected, age_ms, 5_000);
        }
    }
    state.handle(Event::Tick, u64::MAX / 4);
    assert!(state.queue_lengths().are_bounded());
}
