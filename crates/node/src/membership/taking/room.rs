//! How many tokens of context a model could have here that is refused because it was to have more.

use std::fmt;

use super::rules::CONTEXT_MIN;
use crate::loader::{Loader, Plan};
use crate::models::Models;

/// Contexts are tried in steps of so many tokens: fewer make no difference to anybody, and each try reads headers.
const CONTEXT_STEP: u32 = 256;

/// With so many tokens of context at most a model would have room; 0: with none that is of use, or that is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ContextMax(pub(super) u32);

/// To follow what is said of the model.
impl fmt::Display for ContextMax {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            tokens => write!(f, "; {tokens} tokens of context at most have room there"),
        }
    }
}

/// The most tokens of context, `most` or less, that `fits` says have room; what has room must have it with fewer too. Asks
/// at most some two dozen times. Pure.
fn fitting(most: u32, mut fits: impl FnMut(u32) -> bool) -> ContextMax {
    if most == 0 {
        return ContextMax(0);
    }
    if fits(most) {
        return ContextMax(most);
    }
    // A shorter one would be refused too.
    if most <= CONTEXT_MIN || !fits(CONTEXT_MIN) {
        return ContextMax(0);
    }
    // In steps: so many have room, and so many do not.
    let (mut room, mut too_many) = (CONTEXT_MIN / CONTEXT_STEP, most.div_ceil(CONTEXT_STEP));
    while too_many - room > 1 {
        let middle = room.midpoint(too_many);
        match fits(middle * CONTEXT_STEP) {
            true => room = middle,
            false => too_many = middle,
        }
    }
    ContextMax(room * CONTEXT_STEP)
}

/// [`fitting`] for the model of a plan, with the memory that is free now. `bytes_max`: what the owner allows in all.
/// `is_awaited`: somebody waits for it still. Blocks on file reads.
pub(super) fn measured(
    models: &Models,
    bytes_max: Option<u64>,
    plan: &Plan,
    most: u32,
    is_awaited: impl Fn() -> bool,
) -> ContextMax {
    let Some(loader) = models.loader() else {
        return ContextMax(0);
    };
    let free_bytes = models.free_bytes(bytes_max);
    fitting(most, |tokens| {
        is_awaited() && has_room(loader.as_ref(), plan, tokens, free_bytes)
    })
}

fn has_room(loader: &dyn Loader, plan: &Plan, tokens: u32, free_bytes: u64) -> bool {
    let plan = Plan {
        context_tokens: Some(tokens),
        ..plan.clone()
    };
    let needed = loader.memory_needed(&plan);
    let fits = needed.is_ok_and(|needed_bytes| needed_bytes <= free_bytes);
    fits && loader.check_places(&[&plan]).iter().all(Result::is_ok)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::{Backend, Error};

    use super::*;
    use crate::loader::{Progress, Source};
    use crate::{Settings, store};

    #[test]
    fn the_longest_context_is_found_that_has_room() {
        let check = |most: u32, room: u32, expected: u32| {
            let mut asked = 0;
            let found = fitting(most, |tokens| {
                asked += 1;
                tokens <= room
            });
            assert_eq!(found, ContextMax(expected), "{most}, {room}");
            assert!(asked <= 26, "{most}, {room}: asked {asked} times");
        };
        check(8_192, 8_192, 8_192);
        check(8_000, u32::MAX, 8_000);
        check(8_192, 8_191, 7_936);
        check(8_000, 7_999, 7_936);
        check(8_192, 4_096, 4_096);
        check(2_049, 2_048, 2_048);
        check(u32::MAX, 100_000, 99_840);
        check(u32::MAX, u32::MAX - 1, u32::MAX - 255);
        // Fewer would be refused.
        check(8_192, 2_047, 0);
        check(1_024, 1_023, 0);
        check(512, 512, 512);
        check(8_192, 0, 0);
        check(0, 8_192, 0);
    }

    /// Takes a byte for a token, and has a place for some.
    struct Narrow;

    impl Loader for Narrow {
        fn memory_needed(&self, plan: &Plan) -> Result<u64, Error> {
            Ok(plan.context_tokens.map_or(u64::MAX, u64::from))
        }

        fn load(&self, _: Plan, _: Progress) -> Result<Arc<dyn Backend>, Error> {
            Err(Error::Load("nothing is loaded here".into()))
        }

        fn check_places(&self, plans: &[&Plan]) -> Vec<Result<Option<u32>, crate::StartError>> {
            let place = |plan: &&Plan| match plan.context_tokens {
                Some(..=6_000) => Ok(None),
                _ => Err(crate::StartError::ShutDown),
            };
            plans.iter().map(place).collect()
        }

        fn memory_available(&self) -> u64 {
            8_000
        }
    }

    #[tokio::test]
    async fn what_the_machine_has_and_what_its_owner_allows_bound_the_context() {
        for (bytes_max, expected) in [(None, 5_888), (Some(4_000), 3_840), (Some(1_000), 0)] {
            let models = Models::empty(Some(Arc::new(Narrow)));
            let source = Source::File("m.gguf".into());
            let plan = store::plan("m".into(), source, &Settings::default());
            let found = measured(&models, bytes_max, &plan, 65_536, || true);
            assert_eq!(found, ContextMax(expected), "{bytes_max:?}");
            // Nobody waits any more.
            let found = measured(&models, bytes_max, &plan, 65_536, || false);
            assert_eq!(found, ContextMax(0));
        }
    }

    #[tokio::test]
    async fn where_nothing_is_loaded_nothing_has_room() {
        let source = Source::File("m.gguf".into());
        let plan = store::plan("m".into(), source, &Settings::default());
        let found = measured(&Models::empty(None), None, &plan, 8_192, || true);
        assert_eq!(found, ContextMax(0));
    }
}
