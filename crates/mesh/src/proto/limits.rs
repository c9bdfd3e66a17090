//! Owns the limits and times of the protocol. Every number says why it is that number.
//!
//! Times that depend on the size of the mesh are in `timing`.

/// Most bytes of one encoded message. A table page or a bundle of news fits; a receiver refuses
/// longer ones before reading them.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of items after which a sender closes a message. The largest item still fits behind it.
pub const ITEMS_BYTES_SOFT: usize = 40 * 1024;

/// Most messages that one peer may send in a second, averaged; more is misbehaviour. A member that
/// answers a joiner's requests for a table of 4,096 nodes stays below.
pub const PEER_MESSAGES_PER_SECOND: u32 = 200;

/// Messages that may come at once above the rate: what has queued up behind a pause of the network.
pub const PEER_MESSAGES_BURST: u32 = 1_000;

/// Most bytes that one peer may send in a second, averaged, on the stream of these messages.
pub const PEER_BYTES_PER_SECOND: u32 = 2 * 1024 * 1024;

/// Bytes that may come at once above the rate: a whole table of the largest mesh.
pub const PEER_BYTES_BURST: u32 = 16 * 1024 * 1024;

/// Most members in the table, the departed included. Four times the largest mesh that is simulated.
pub const MEMBERS_MAX: usize = 4_096;

/// Most revocations. Each is an act of a person.
pub const REVOCATIONS_MAX: usize = 4_096;

/// Most bytes of one revocation with its proof: a chain of eight certificates fits.
pub const REVOCATION_BYTES_MAX: usize = 8 * 1024;

/// Most connections that the state keeps count of, clients included.
pub const CONNECTIONS_MAX: usize = 2_048;

/// Neighbours that a node chooses besides its successor on the ring. With the chosen ones of
/// others that makes six on average: 1,000 nodes are then some five hops wide.
pub const CHOSEN_LINKS: usize = 2;

/// Most neighbours, those that others chose included. Several times the average.
pub const LINKS_MAX: usize = 20;

/// Most neighbours with which another one is let in. The places beyond are for those that this node
/// chooses itself.
pub const LINKS_OPEN: usize = LINKS_MAX - CHOSEN_LINKS - 1;

/// How long a node that refused, or could not be dialled, is not chosen as a neighbour.
pub const REFUSED_MS: u64 = 60_000;

/// How often the choice of neighbours is looked over.
pub const CHOOSE_MS: u64 = 4_000;

/// Shortest time between two such looks: many come or go at once when a partition ends.
pub const CHOOSE_MS_MIN: u64 = 200;

/// Most dials at once, whatever for.
pub const DIALS_MAX: usize = 16;

/// How long a dial may take before it counts as failed, whether or not the network says so.
pub const DIAL_MS_MAX: u64 = 8_000;

/// How long ordinary news waits for company before it is sent on.
pub const FLUSH_MS: u64 = 200;

/// How long hashes of ordinary news wait for company, in the smallest and the largest mesh. With some
/// five hops, load and memory are known to a thousand nodes within ten seconds.
pub const OFFER_MS: (u64, u64) = (500, 2_000);

/// How long hashes of urgent news wait for company before they are sent along a link outside of the
/// tree: soon enough to repair a broken tree quickly.
pub const HAVE_MS: u64 = 250;

/// How long a node that knows the hash of urgent news waits for the news itself to come.
pub const MISSING_MS: u64 = 700;

/// How long it waits for an answer before it asks another one.
pub const WANT_MS: u64 = 2_000;

/// How often it asks for the same news before it leaves it to the next comparison.
pub const WANT_TRIES_MAX: u8 = 4;

/// Most pieces of news that one request names. Answered with at most twenty messages.
pub const WANT_LEN_MAX: usize = 64;

/// Most missing pieces that are kept track of; the comparison finds the others again.
pub const MISSING_MAX: usize = 4_096;

/// Most pieces of news waiting for one link. Beyond, the queue is dropped and the tables compared.
pub const PENDING_MAX: usize = 2_048;

/// Most hashes in one message.
pub const HASHES_MAX: usize = 4_096;

/// Duplicates in a row after which a link leaves the tree: one may be an accident of timing.
pub const DUPLICATES_MAX: u32 = 2;

/// Shortest time between two links of one node that leave the tree. Were all to leave it that bring
/// duplicates of the same burst, nobody would be left on it, and news would wait for hashes.
pub const PRUNE_MS: u64 = 2_000;

/// Hashes of past news that are remembered, so that nobody asks for it again.
pub const PAST_MAX: usize = 2_048;

/// Silence after which a neighbour is asked whether it lives.
pub const PING_AFTER_MS: u64 = 5_000;

/// How long it may take to answer: several round trips through a relay, and one lost packet.
pub const PING_MS_MAX: u64 = 2_500;

/// Unanswered questions that make the first strike.
pub const PINGS_MAX: u8 = 2;

/// When, within a check, the accused is named to the whole mesh so that it can object.
pub const SUSPECT_AFTER_MS: u64 = 3_000;

/// When, within a check, silence becomes the second strike and the node is declared dead.
pub const DEAD_AFTER_MS: u64 = 12_000;

/// How much longer a node waits whose neighbours are all silent: more likely it is itself cut off.
pub const ISOLATED_MS: u64 = 12_000;

/// How often the questions of a check are repeated.
pub const CHECK_REPEAT_MS: u64 = 2_000;

/// Members that are asked to reach the accused.
pub const HELPERS: usize = 3;

/// Most checks at once. More silent nodes than that are a fault of the network; they wait.
pub const CHECKS_MAX: usize = 64;

/// Most questions on behalf of others at once.
pub const PROBES_MAX: usize = 32;

/// How long a question on behalf of another is kept.
pub const PROBE_MS_MAX: u64 = 6_000;

/// How long others show a suspicion that they were told of. A death or an objection comes before.
pub const SUSPICION_MS: u64 = 20_000;

/// Most suspicions that others told of, at once.
pub const SUSPICIONS_MAX: usize = 512;

/// A gap between two events after which this node was itself asleep, and its clocks of others'
/// silence mean nothing. Timers fire at least every second.
pub const ASLEEP_MS: u64 = 4_000;

/// How long a node that was away holds nobody for silent: it connects and compares tables meanwhile.
pub const GRACE_MS: u64 = 60_000;

/// How long a departure is remembered: no announcement from before it can still be valid then.
pub const DEPARTED_MS: u64 = crate::announcement::TTL_MS_MAX + 60_000;

/// Most of the departed that are looked for now and then, in case a partition hides them.
pub const FORMER_MAX: usize = 256;

/// How often one of them is dialled.
pub const SEEK_MS: u64 = 10_000;

/// The bounds of the time until the same one is dialled again. Many members look for it.
pub const SEEK_AGAIN_MS: (u64, u64) = (60_000, 600_000);

/// For how long after a death a node is looked for.
pub const FORMER_MS: u64 = 24 * 60 * 60 * 1000;

/// How long a link that joins two tables is kept before the choice of neighbours may end it.
pub const BRIDGE_MS: u64 = 20_000;

/// Urgent announcements that may follow each other, and the time in which one more is allowed.
pub const URGENT_BURST: u32 = 4;
/// See [`URGENT_BURST`].
pub const URGENT_REFILL_MS: u64 = 15_000;
/// Shortest time between two announcements of one node, in milliseconds.
pub const ANNOUNCE_MS_MIN: u64 = 500;

/// Announcements of one author that are believed at once, and the time in which one more is:
/// twice what a correct node does.
pub const AUTHOR_BURST: u32 = 12;
/// See [`AUTHOR_BURST`].
pub const AUTHOR_REFILL_MS: u64 = 2_000;

/// The shortest and longest time between two new incarnations. Two machines with one key would
/// otherwise outbid each other without end.
pub const REINCARNATE_MS: (u64, u64) = (500, 60_000);

/// How far ahead of the own clock the incarnation of an unknown dead node may lie. Clocks are
/// two minutes apart at most; the rest is for raised incarnations.
pub const INCARNATION_AHEAD_MS: u64 = 10 * 60 * 1000;

/// Members that a node which only pulls keeps connections to.
pub const PULL_SERVERS: usize = 2;

/// How often a table is pulled, unless the member that is asked says otherwise.
pub const PULL_MS: u64 = 10_000;

/// Pulls that one member wants to answer in a second: with more clients each comes less often.
pub const PULLS_PER_SECOND: u64 = 20;

/// The shortest time between two pulls, whatever a member says.
pub const PULL_AGAIN_MS_MIN: u64 = 1_000;

/// How long after its start a member without neighbours, who was told of others, says that its table
/// may not be all.
pub const YOUNG_MS: u64 = 5_000;

/// The longest time between two pulls, whatever a member says.
pub const PULL_MS_MAX: u64 = 60_000;

/// How long a pull may take before another member is asked.
pub const PULL_ANSWER_MS_MAX: u64 = 4_000;

/// Shortest time between two pulls of one client that are answered, beyond a few at once. Pages
/// of one table follow each other freely.
pub const PULL_MS_MIN: u64 = 500;

/// Most members that a starting node is told to dial.
pub const BOOTSTRAP_MAX: usize = 16;

/// How soon a starting node dials them again while it has no neighbour; each time it waits twice as
/// long, up to the limit.
pub const BOOTSTRAP_MS: u64 = 3_000;
/// See [`BOOTSTRAP_MS`]. A machine whose network comes late waits no longer than this.
pub const BOOTSTRAP_MS_MAX: u64 = 24_000;
