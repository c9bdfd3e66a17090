//! A local network without internet. The program runs as it comes: it looks for relays, of which none
//! answers, and listens to multicast.

use std::time::{Duration, Instant};

use mesh::Addresses;
use mesh::identity::StateDir;
use mesh::ticket::Ticket;
use testkit::net::Lab;

use crate::hosts::{Machine, answer, question};

/// The program waits four seconds for a relay before it makes a ticket that is to lead here from everywhere.
/// Nothing else may wait for that: not a node that starts, nor one that joins.
const READY_MAX: Duration = Duration::from_secs(4);

/// From then on until the ticket is printed: that wait, and two seconds for a busy machine.
const TICKET_MAX: Duration = Duration::from_secs(6);

/// From the join to the end of an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Starts a node; it must be ready in time.
fn start<'a>(lab: &'a Lab, host: usize, name: &str, arguments: &[&str]) -> Machine<'a> {
    let began = Instant::now();
    let machine = Machine::start_as_it_comes(lab, host, name, arguments);
    let took = began.elapsed();
    assert!(took < READY_MAX, "{name} was ready after {took:.1?}");
    machine
}

/// A machine that has joined just now answers through the mesh, in time.
fn answers(machine: &Machine<'_>) {
    let joined = Instant::now();
    machine.knows(1);
    let words = machine.ask(question(20), |host, _| {
        assert!(host.starts_with("first ("), "{host}");
    });
    assert_eq!(words, answer(20));
    let took = joined.elapsed();
    assert!(took < ANSWER_MAX, "it answered after {took:.1?}");
}

/// The ticket without the addresses of its issuer: only multicast tells where that one is.
fn without_addresses(text: &str, issuer: &Machine<'_>) -> String {
    let ticket: Ticket = text.parse().unwrap();
    let mut terms = ticket.terms().clone();
    for (_, addresses) in &mut terms.bootstrap {
        *addresses = Addresses::default();
    }
    let state = StateDir::new(issuer.home.path().join(".mesh-llm"));
    Ticket::sign(terms, &state.key().unwrap()).to_string()
}

pub(crate) fn machines_join_and_answer_where_there_is_no_internet() {
    let lab = Lab::new(4).unwrap();
    let first = start(&lab, 0, "first", &["--model=starter"]);
    let told = Instant::now();
    // A program has a ticket at once, which is good for this network.
    let standby = ["--standby", "--join", first.ticket()];
    let second = start(&lab, 1, "second", &standby);
    answers(&second);
    // A person is shown one as soon as it is clear that no relay answers. That one was looked for.
    let rest = || TICKET_MAX.saturating_sub(told.elapsed());
    first.hears(rest(), |event| {
        let message = event["message"].as_str().unwrap_or_default();
        message.starts_with("no relay answered")
    });
    let shown = first.hears(rest(), |event| event["event"] == "ticket");
    let shown = shown["ticket"].as_str().unwrap();
    let client = start(&lab, 2, "client", &["--client", "--join", shown]);
    answers(&client);
    // Nobody finds anybody here but by multicast. That may take longer than the others may.
    let bare = without_addresses(shown, &first);
    let arguments = ["--client", "--join", &bare];
    let finder = Machine::start_as_it_comes(&lab, 3, "finder", &arguments);
    answers(&finder);
}
