//! Takes the output of a model's last layer out of the graph, and puts hidden states into it.
//!
//! llama.cpp calls back for every node of the graph, if a context has a callback. Ours overwrites the
//! node that the first layer reads, and copies the rows of another one and then stops the graph, so
//! that norm and head are never computed. llama.cpp has batches of embeddings too, but they are
//! meant for pictures: some graphs scale them, and some end the process.

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::error::Error;

/// Which nodes of the graph a context takes hidden states from and gives them to, by the names that
/// llama.cpp gives them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LayerHook {
    /// The first node of one of these names gives the hidden states, and the graph ends there. None:
    /// the graph goes on to the logits.
    pub outputs: Vec<String>,
    /// The node that gets the hidden states instead of what the tokens stand for: what the first
    /// layer reads.
    pub input: String,
}

impl LayerHook {
    /// The usual name of the output of a model with `layers` layers.
    #[must_use]
    pub fn last_layer(layers: u32) -> String {
        format!("l_out-{}", layers.saturating_sub(1))
    }
}

/// A hook that a context calls: freed after it.
#[derive(Debug)]
pub(crate) struct Hook {
    state: NonNull<State>,
}

/// What the callback works on. While llama.cpp decodes, only the callback touches it.
#[derive(Debug)]
struct State {
    outputs: Vec<CString>,
    input: CString,
    width: usize,
    /// Set only while hidden states are decoded; else the callback wants no node.
    armed: bool,
    /// The rows of the batch, in the order in which the graphs take them.
    given: Vec<f32>,
    /// Rows that the graphs before this one took.
    given_rows: usize,
    /// Room for a row of each row of the batch; filled from the front.
    taken: Vec<f32>,
    /// Rows that each graph gave.
    taken_rows: Vec<usize>,
    /// A node had another shape than hidden states have.
    failed: bool,
}

// SAFETY: the pointer is the only one to heap memory that is bound to no thread, apart from the copy
// that llama.cpp keeps and uses during decode calls only, which need `&mut` of the owning context.
unsafe impl Send for Hook {}

impl Drop for Hook {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, freed once; the context that calls it is gone
        // (`Context` frees it before its fields are dropped).
        drop(unsafe { Box::from_raw(self.state.as_ptr()) });
    }
}

impl Hook {
    pub(crate) fn new(hook: &LayerHook, width: usize) -> Result<Self, Error> {
        let text = |_| Error::Text("the name of a node holds a NUL byte");
        let name = |name: &String| CString::new(name.as_str()).map_err(text);
        let state = State {
            outputs: hook.outputs.iter().map(name).collect::<Result<_, _>>()?,
            input: name(&hook.input)?,
            width,
            armed: false,
            given: Vec::new(),
            given_rows: 0,
            taken: Vec::new(),
            taken_rows: Vec::new(),
            failed: false,
        };
        let state = NonNull::from(Box::leak(Box::new(state)));
        Ok(Self { state })
    }

    /// What llama.cpp hands to [`on_node`].
    pub(crate) fn user_data(&self) -> *mut c_void {
        self.state.as_ptr().cast()
    }

    fn state(&mut self) -> &mut State {
        // SAFETY: alive until `drop`; llama.cpp's copy of the pointer is used during decode calls
        // only, and no reference from here lives through one.
        unsafe { self.state.as_mut() }
    }

    /// Whether hidden states are taken out.
    pub(crate) fn takes(&self) -> bool {
        // SAFETY: as in `state`.
        !unsafe { self.state.as_ref() }.outputs.is_empty()
    }

    /// Makes ready for the decoding of `order.len()` rows; `order` says which row of `hidden` comes
    /// when.
    pub(crate) fn arm(&mut self, hidden: &[f32], order: &[usize]) {
        let state = self.state();
        state.given.clear();
        state.given_rows = 0;
        let width = state.width;
        for row in order {
            let row = row * width..(row + 1) * width;
            state.given.extend_from_slice(&hidden[row]);
        }
        state.taken_rows.clear();
        if !state.outputs.is_empty() {
            state.taken.resize(order.len() * state.width, 0.0);
        }
        state.failed = false;
        state.armed = true;
    }

    /// After the decoding: whether graphs of `sizes` rows gave and took hidden states.
    pub(crate) fn disarm(&mut self, sizes: &[usize]) -> bool {
        let state = self.state();
        state.armed = false;
        let rows: usize = sizes.iter().sum();
        let took = state.outputs.is_empty() || state.taken_rows == sizes;
        let gave = state.given_rows == rows;
        !state.failed && took && gave
    }

    /// The rows taken, in the order in which the graphs gave them.
    pub(crate) fn taken(&self) -> &[f32] {
        // SAFETY: as in `state`.
        &unsafe { self.state.as_ref() }.taken
    }
}

impl State {
    fn is_input(&self, name: &CStr) -> bool {
        self.input.as_c_str() == name
    }

    fn is_output(&self, name: &CStr) -> bool {
        self.outputs.iter().any(|n| n.as_c_str() == name)
    }

    /// Rows of a node that has the shape of hidden states.
    fn rows_of(&self, node: &sys::ggml_tensor) -> Option<usize> {
        // SAFETY: the node is alive; both functions only look at its shape.
        let (contiguous, bytes) =
            unsafe { (sys::ggml_is_contiguous(node), sys::ggml_nbytes(node)) };
        let rows = usize::try_from(node.ne[1]).ok()?;
        let is_right = node.type_ == sys::GGML_TYPE_F32
            && contiguous
            && usize::try_from(node.ne[0]) == Ok(self.width)
            && bytes
                == rows
                    .checked_mul(self.width)?
                    .checked_mul(size_of::<f32>())?;
        is_right.then_some(rows)
    }

    /// Copies the rows of a node. `None`: they are not what was expected.
    fn take(&mut self, node: &sys::ggml_tensor) -> Option<()> {
        let rows = self.rows_of(node)?;
        let from = self.taken_rows.iter().sum::<usize>() * self.width;
        let room = self.taken.get_mut(from..from + rows * self.width)?;
        // SAFETY: the node has been computed; `room` is as long as the node's data.
        unsafe {
            sys::ggml_backend_tensor_get(node, room.as_mut_ptr().cast(), 0, size_of_val(room));
        }
        self.taken_rows.push(rows);
        Some(())
    }

    /// Overwrites a node with rows of the batch. `None`: it is not what was expected.
    fn give(&mut self, node: &mut sys::ggml_tensor) -> Option<()> {
        let rows = self.rows_of(node)?;
        let from = self.given_rows * self.width;
        let given = self.given.get(from..from + rows * self.width)?;
        // SAFETY: the node has been computed and is read only by nodes after it; `given` is as long
        // as the node's data.
        unsafe { sys::ggml_backend_tensor_set(node, given.as_ptr().cast(), 0, size_of_val(given)) };
        self.given_rows += rows;
        Some(())
    }
}

/// Called by llama.cpp for each node of a graph: with `ask` to learn whether the node is wanted, and
/// once more when a wanted one has been computed. False then ends the graph.
///
/// Nothing in it panics; if something did, Rust would end the process rather than unwind into C++.
///
/// # Safety
/// `node` is alive; `user_data` is that of a living [`Hook`], to whose state nobody else holds a
/// reference.
pub(crate) unsafe extern "C" fn on_node(
    node: *mut sys::ggml_tensor,
    ask: bool,
    user_data: *mut c_void,
) -> bool {
    // SAFETY: the caller's promise. Decode calls borrow the context mutably, and with it the hook.
    let (state, node) = unsafe { (&mut *user_data.cast::<State>(), &mut *node) };
    // SAFETY: ggml ends names with NUL, within the array.
    let name = unsafe { CStr::from_ptr(node.name.as_ptr()) };
    let (gives, takes) = (state.is_input(name), state.is_output(name));
    if ask {
        return state.armed && (gives || takes);
    }
    let done = if gives {
        state.give(node)
    } else {
        state.take(node)
    };
    state.failed |= done.is_none();
    // A graph that failed need not go on.
    gives && done.is_some()
}
