//! What happens to workers on a bad day: they leave, die, come back, and have other hosts.

use super::world::*;
use super::*;
use crate::lease::{self, Table};

impl World {
    pub(super) fn leave(&mut self, number: u8) {
        if !self.is_bad {
            return;
        }
        let pause = self.dice.millis(1_000_000);
        self.after(pause, Later::Leave(number));
        let worker = &mut self.workers[usize::from(number)];
        if !worker.is_alive || worker.is_leaving {
            return;
        }
        worker.is_leaving = true;
        // Who has no stage there is told nothing; words may be lost.
        if !worker.granted.is_empty() && !self.dice.one_in(5) {
            let pause = self.dice.millis(1_500);
            self.after(pause, Later::ToHost(Event::Leaves(number)));
        }
        let pause = Duration::from_secs(30);
        self.after(pause, Later::End(number));
    }

    pub(super) fn kill(&mut self, number: u8) {
        if !self.is_bad {
            return;
        }
        let pause = self.end(number) + self.dice.millis(400_000);
        self.after(pause, Later::Kill(number));
    }

    /// Memory and leases die with the machine. It comes back after a while.
    pub(super) fn end(&mut self, number: u8) -> Duration {
        let worker = &mut self.workers[usize::from(number)];
        let budget = worker.table.free_bytes() + worker.table.used_bytes();
        worker.is_alive = false;
        worker.table = Table::new(budget);
        worker.granted.clear();
        worker.rivals = 0;
        let pause = self.dice.millis(120_000);
        self.after(pause, Later::Revive(number));
        pause
    }

    pub(super) fn rival(&mut self, number: u8) {
        if !self.is_bad || !self.workers[usize::from(number)].is_alive {
            return;
        }
        let ask = lease::Event::Ask(lease::Ask {
            host: 7,
            ring: RIVAL,
            epoch: self.order as u32,
            bytes: STAGE_BYTES,
            lease: LEASE,
        });
        self.worker(number, ask);
        let pause = self.dice.millis(200_000);
        self.after(pause, Later::Rival(number));
    }

    pub(super) fn worker(&mut self, number: u8, event: lease::Event<u8>) {
        let budget = {
            let table = &self.workers[usize::from(number)].table;
            table.free_bytes() + table.used_bytes()
        };
        if let lease::Event::Ask(ask) = event
            && self.workers[usize::from(number)].is_leaving
        {
            self.workers[usize::from(number)].refused.insert(ask.epoch);
            return;
        }
        let effects = self.workers[usize::from(number)]
            .table
            .handle(event, self.now);
        for effect in effects {
            let worker = &mut self.workers[usize::from(number)];
            match effect {
                lease::Effect::Grant(RIVAL, _) => worker.rivals += 1,
                lease::Effect::Grant(_, epoch) => {
                    assert!(worker.granted.insert(epoch), "granted twice");
                }
                lease::Effect::Refuse(RIVAL, ..) => {}
                lease::Effect::Refuse(_, epoch, _) => {
                    worker.refused.insert(epoch);
                }
                lease::Effect::End(ring, epoch, _) => {
                    match ring == RIVAL {
                        true => worker.rivals -= 1,
                        false => assert!(worker.granted.remove(&epoch), "ended twice"),
                    }
                    let pause = self.dice.millis(3_000);
                    let gone = lease::Event::Gone(ring, epoch);
                    self.after(pause, Later::ToWorker(number, gone));
                }
            }
            let table = &self.workers[usize::from(number)].table;
            assert!(table.used_bytes() <= budget, "memory is promised twice");
        }
        let worker = &self.workers[usize::from(number)];
        let granted_bytes = worker.granted.len() as u64 * STAGE_BYTES;
        assert!(granted_bytes <= budget, "two epochs in one memory");
    }
}
