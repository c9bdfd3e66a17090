//! The program on several hosts: with bad links between them (20 ms round trip, 1 % loss), and on a local
//! network without internet.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[cfg(all(target_os = "linux", feature = "solo"))]
#[path = "../alphabet/mod.rs"]
mod alphabet;
#[cfg(all(target_os = "linux", feature = "solo"))]
mod hosts;
#[cfg(all(target_os = "linux", feature = "solo"))]
mod lan;
#[cfg(all(target_os = "linux", feature = "solo"))]
#[path = "../losses/mod.rs"]
mod losses;
#[cfg(all(target_os = "linux", feature = "solo"))]
mod split;

use std::process::ExitCode;

use testkit::trial::Suite;

fn main() -> ExitCode {
    let mut suite = Suite::from_args();
    add(&mut suite);
    suite.run()
}

#[cfg(all(target_os = "linux", feature = "solo"))]
fn add(suite: &mut Suite) {
    testkit::net::gain_rights();
    suite.add(
        testkit::net::supported,
        testkit::trial::trials![
            hosts::machines_answer_for_each_other_over_bad_links,
            hosts::two_models_on_two_machines_are_reached_from_everywhere,
            hosts::an_answer_goes_on_when_the_cable_to_its_host_is_cut,
            hosts::an_answer_goes_on_when_its_host_is_killed,
            hosts::a_machine_that_pauses_loses_its_answers_and_comes_back,
            hosts::machines_come_back_after_the_power_failed,
            hosts::a_member_whose_ticket_is_revoked_is_out_at_once,
            hosts::fifty_clients_ask_at_once,
            lan::machines_join_and_answer_where_there_is_no_internet,
            split::streams_go_on_when_the_cable_to_any_worker_is_cut,
            split::streams_go_on_when_the_cable_to_the_host_is_cut,
            split::a_prompt_goes_on_when_the_cable_to_the_host_is_cut,
        ],
    );
}

#[cfg(not(all(target_os = "linux", feature = "solo")))]
fn add(suite: &mut Suite) {
    fn hosts() {}
    let possible = || Err("needs Linux and models in this process".to_owned());
    suite.add(possible, testkit::trial::trials![hosts]);
}
