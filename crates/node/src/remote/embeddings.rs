//! The embeddings of one request, as a host sends them one after another. Pure.
//!
//! What the numbers are is the host's business. How many there are is not: the request says how many
//! vectors belong to it, and all of them are equally long.

use engine::Embeddings;

use crate::wire::VECTOR_VALUES_MAX;

/// Most texts of one request: 32 times what the API takes, for programs that use the crate.
pub(super) const INPUTS_MAX: usize = 65_536;

/// Most values of all vectors of one request, 256 MiB of them: [`INPUTS_MAX`] texts with 1,024 values
/// each, or as many as the API takes with 32,768.
const VALUES_MAX: usize = 64 << 20;

/// Vectors that have come so far.
#[derive(Debug)]
pub(super) struct Collected {
    /// How many belong to the request.
    inputs: usize,
    vectors: Vec<Vec<f32>>,
}

impl Collected {
    /// None yet, of a request with so many texts.
    pub(super) fn new(inputs: usize) -> Self {
        Self {
            inputs,
            vectors: Vec::new(),
        }
    }

    /// Takes the next vector; false if no such vector belongs to the request.
    #[must_use]
    pub(super) fn take(&mut self, vector: Vec<f32>) -> bool {
        let fits = match self.vectors.first() {
            Some(first) => vector.len() == first.len(),
            // All others are as long, so that the first one tells how much all of them take.
            None => {
                let values = self.inputs.saturating_mul(vector.len());
                (1..=VECTOR_VALUES_MAX).contains(&vector.len()) && values <= VALUES_MAX
            }
        };
        let belongs = fits && self.vectors.len() < self.inputs;
        if belongs {
            self.vectors.push(vector);
        }
        belongs
    }

    /// All of them; `None` if some are missing.
    pub(super) fn end(self, prompt_tokens: u32) -> Option<Embeddings> {
        (self.vectors.len() == self.inputs).then_some(Embeddings {
            vectors: self.vectors,
            prompt_tokens,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes vectors of these lengths for a request with so many texts; gives how many were taken, and
    /// how many came out at the end.
    fn collect(inputs: usize, lengths: &[usize]) -> (usize, Option<usize>) {
        let mut collected = Collected::new(inputs);
        let taken = lengths
            .iter()
            .take_while(|length| collected.take(vec![0.5; **length]))
            .count();
        let ended = collected.end(7);
        let told = ended.as_ref().map(|embeddings| embeddings.prompt_tokens);
        assert!(told.is_none_or(|tokens| tokens == 7));
        (taken, ended.map(|embeddings| embeddings.vectors.len()))
    }

    #[test]
    fn only_what_belongs_to_the_request_is_taken() {
        assert_eq!(collect(2, &[3, 3]), (2, Some(2)));
        assert_eq!(collect(0, &[]), (0, Some(0)));
        // Too few, too many, none asked for.
        assert_eq!(collect(2, &[3]), (1, None));
        assert_eq!(collect(2, &[3, 3, 3]), (2, Some(2)));
        assert_eq!(collect(0, &[3]), (0, Some(0)));
        // Of different lengths, or of none.
        assert_eq!(collect(2, &[3, 4]), (1, None));
        assert_eq!(collect(2, &[3, 0]), (1, None));
        assert_eq!(collect(2, &[0, 0]), (0, None));
        // Longer than any model makes them.
        let longest = VECTOR_VALUES_MAX;
        assert_eq!(collect(1, &[longest]), (1, Some(1)));
        assert_eq!(collect(1, &[longest + 1]), (0, None));
    }

    #[test]
    fn the_first_vector_tells_whether_all_have_room() {
        let inputs = VALUES_MAX / VECTOR_VALUES_MAX;
        assert_eq!(collect(inputs, &[VECTOR_VALUES_MAX]), (1, None));
        assert_eq!(collect(inputs + 1, &[VECTOR_VALUES_MAX]), (0, None));
        assert_eq!(collect(INPUTS_MAX, &[1_024]), (1, None));
        assert_eq!(collect(INPUTS_MAX, &[1_025]), (0, None));
        assert_eq!(collect(usize::MAX, &[2]), (0, None));
    }
}
