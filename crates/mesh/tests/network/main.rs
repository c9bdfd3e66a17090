//! Real nodes on networks that not every machine allows: several hosts, bad links, multicast.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(target_os = "linux")]
mod bulk;
#[cfg(target_os = "linux")]
mod hosts;
mod multicast;
// Shared with the tests on loopback; not all of it is needed here.
#[allow(dead_code)]
#[path = "../mesh/nodes.rs"]
mod nodes;

use std::process::ExitCode;

use testkit::trial::{Suite, trials};

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    testkit::net::gain_rights();
    let mut suite = Suite::from_args();
    suite.add(
        multicast::multicast_works,
        trials![multicast::a_ticket_without_addresses_works_on_a_local_network],
    );
    #[cfg(target_os = "linux")]
    suite.add(
        testkit::net::supported,
        trials![
            hosts::two_members_join_and_talk_over_a_bad_link,
            hosts::three_members_see_each_other_over_bad_links,
            hosts::a_cut_link_is_noticed_and_heals,
            hosts::a_member_that_was_cut_off_comes_back,
            hosts::a_ticket_without_addresses_works_between_hosts,
            hosts::a_hidden_state_takes_one_flight_each_way,
            bulk::hidden_states_do_not_wait_behind_weights,
        ],
    );
    suite.run()
}
