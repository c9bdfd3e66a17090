//! From the name that a user asks for to the hosts that can answer, here and in the mesh. Pure.

use std::collections::BTreeMap;

use engine::ModelInfo;
use mesh::NodeId;
use mesh::announcement::ServedModel;
use mesh::proto::{Liveness, Member, View};

use crate::models::{Purpose, Table, is_auto, is_called};
use crate::route::{Candidate, Place};
use crate::snapshot::{Host, Target};

/// Hosts of one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    /// Its name, as its hosts spell it.
    pub(crate) name: String,
    /// Who answers for it; not empty.
    pub(crate) candidates: Vec<Candidate>,
}

/// A served model with its host.
struct Offer<'a> {
    name: &'a str,
    size_bytes: u64,
    fits: bool,
    candidate: Candidate,
}

/// Finds the hosts of the model that `asked` means; empty or `auto` is the best that answers:
/// the largest, one of this node among equals.
pub(crate) fn find(
    table: &Table,
    view: Option<&View>,
    asked: &str,
    purpose: Purpose,
) -> Option<Found> {
    let offers: Vec<Offer<'_>> = offers(table, view, purpose);
    let name = if is_auto(asked) {
        // `min_by_key` takes the first of equals, and offers of this node come first.
        let best = |fitting: bool| {
            let offers = offers.iter().filter(|offer| offer.fits || !fitting);
            offers.min_by_key(|offer| std::cmp::Reverse(offer.size_bytes))
        };
        best(true).or_else(|| best(false))?.name
    } else {
        let exact = offers.iter().find(|offer| offer.name == asked);
        exact
            .or_else(|| offers.iter().find(|offer| is_called(offer.name, asked)))?
            .name
    };
    let name = name.to_owned();
    let candidates = offers.into_iter().filter(|offer| offer.name == name);
    Some(Found {
        candidates: candidates.map(|offer| offer.candidate).collect(),
        name,
    })
}

/// Everything that answers, what is here first.
fn offers<'a>(table: &'a Table, view: Option<&'a View>, purpose: Purpose) -> Vec<Offer<'a>> {
    let here = table.ready().map(|backend| {
        let (info, load) = (backend.info(), backend.load());
        Offer {
            name: &info.name,
            size_bytes: info.size_bytes,
            fits: purpose.fits(info),
            candidate: Candidate {
                place: Place::Here,
                fingerprint: info.fingerprint.clone(),
                slots: info.slots,
                busy: load.running,
                queued: load.waiting,
                round_trip_us: Some(0),
                suspect: false,
            },
        }
    });
    let there = served(view).map(|(member, served)| Offer {
        name: &served.model.name,
        size_bytes: served.model.size_bytes,
        fits: served.model.embeds == (purpose == Purpose::Embed),
        candidate: Candidate {
            place: Place::Peer(member.node),
            fingerprint: served.model.fingerprint.clone(),
            slots: served.slots,
            busy: served.busy,
            queued: served.queued,
            round_trip_us: member.round_trip_us,
            suspect: member.liveness == Liveness::Suspect,
        },
    });
    here.chain(there).collect()
}

/// What other living members serve; models that only draft are nobody's business.
fn served(view: Option<&View>) -> impl Iterator<Item = (&Member, &ServedModel)> {
    let view = view.into_iter();
    view.flat_map(|view| view.alive().filter(|member| member.node != view.me))
        .flat_map(|member| {
            let serving = member.announcement().info.serving.iter();
            serving
                .filter(|served| !served.model.draft)
                .map(move |served| (member, served))
        })
}

/// Every model that can be asked for, with its hosts, by name.
pub(crate) fn targets(table: &Table, view: Option<&View>, own_name: &str) -> Vec<Target> {
    let mut targets: BTreeMap<String, Target> = BTreeMap::new();
    let mut add = |info: (&str, u64, u32), host: Host| {
        let (name, size_bytes, context_tokens) = info;
        let target = targets.entry(name.to_owned()).or_insert_with(|| Target {
            model: name.to_owned(),
            size_bytes,
            context_tokens,
            hosts: Vec::new(),
        });
        target.hosts.push(host);
    };
    let me: Option<NodeId> = view.map(|view| view.me);
    for backend in table.ready() {
        let (info, load) = (backend.info(), backend.load());
        let info: &ModelInfo = info;
        add(
            (&info.name, info.size_bytes, info.context_tokens),
            Host {
                node: me,
                name: own_name.to_owned(),
                local: true,
                slots: info.slots,
                busy: load.running,
                queued: load.waiting,
            },
        );
    }
    for (member, served) in served(view) {
        let model = &served.model;
        add(
            (&model.name, model.size_bytes, model.context_length),
            Host {
                node: Some(member.node),
                name: member.announcement().info.name.clone(),
                local: false,
                slots: served.slots,
                busy: served.busy,
                queued: served.queued,
            },
        );
    }
    targets.into_values().collect()
}

/// What is known of a model whose hosts do not answer: a generating model of that name and size.
pub(crate) fn outline(target: &Target) -> ModelInfo {
    ModelInfo {
        name: target.model.clone(),
        architecture: String::new(),
        quantization: String::new(),
        parameters: 0,
        size_bytes: target.size_bytes,
        context_tokens: target.context_tokens,
        trained_context_tokens: target.context_tokens,
        embedding_width: 0,
        vocabulary_tokens: 0,
        slots: target
            .hosts
            .iter()
            .map(|host| host.slots)
            .fold(0, u32::saturating_add),
        generates: true,
        embeds: false,
        tools: false,
        reasoning: false,
        created_unix_s: 0,
        fingerprint: String::new(),
    }
}
