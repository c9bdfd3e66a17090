//! The order in which llama.cpp takes the rows of a batch.

use crate::SeqId;

/// How llama.cpp cuts a batch into graphs: the rows in the order in which it takes them, and how
/// many each graph has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) rows: Vec<usize>,
    pub(crate) sizes: Vec<usize>,
}

impl Order {
    /// Attention alone: one graph with the rows as they are.
    pub(crate) fn as_given(rows: usize) -> Self {
        Self {
            rows: (0..rows).collect(),
            sizes: vec![rows],
        }
    }

    /// Layers with recurrent state want the same number of rows of each sequence in a graph, one
    /// sequence after the other: `llama_batch_allocr::split_equal`, without the sequential rule
    /// (unified KV cache). A batch has at most `rows_max` rows, so a graph holds it if it can be one.
    pub(crate) fn by_sequence(sequences: &[SeqId], rows_max: usize) -> Self {
        // Rows of each sequence, in the order of the sequences' first rows.
        let mut left: Vec<(SeqId, std::collections::VecDeque<usize>)> = Vec::new();
        for (row, &sequence) in sequences.iter().enumerate() {
            match left.iter_mut().find(|(s, _)| *s == sequence) {
                Some((_, rows)) => rows.push_back(row),
                None => left.push((sequence, [row].into())),
            }
        }
        let mut order = Self {
            rows: Vec::with_capacity(sequences.len()),
            sizes: Vec::new(),
        };
        while !left.is_empty() {
            // The next first row decides which sequence comes first.
            left.sort_by_key(|(_, rows)| rows.front().copied());
            let shortest = left.iter().map(|(_, rows)| rows.len()).min().unwrap_or(0);
            let each = shortest.min((rows_max / left.len()).max(1));
            order.sizes.push(each * left.len());
            for (_, rows) in &mut left {
                order.rows.extend(rows.drain(..each));
            }
            left.retain(|(_, rows)| !rows.is_empty());
        }
        order
    }

    /// Whether the rows stay as they are.
    pub(crate) fn is_as_given(&self) -> bool {
        self.rows.iter().enumerate().all(|(i, row)| i == *row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sequences: &[SeqId], rows: &[usize], sizes: &[usize]) {
        let order = Order::by_sequence(sequences, 8);
        assert_eq!(order.rows, rows, "{sequences:?}");
        assert_eq!(order.sizes, sizes, "{sequences:?}");
    }

    #[test]
    fn recurrent_batches_are_cut_into_equal_parts() {
        check(&[0, 0, 0], &[0, 1, 2], &[3]);
        check(&[0, 1, 0, 1], &[0, 2, 1, 3], &[4]);
        check(&[5, 2, 2, 2], &[0, 1, 2, 3], &[2, 2]);
        check(&[1, 1, 0, 1, 0], &[0, 1, 2, 4, 3], &[4, 1]);
        check(&[0, 0, 1, 2, 2, 2], &[0, 2, 3, 1, 4, 5], &[3, 2, 1]);
    }
}
