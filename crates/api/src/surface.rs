//! What differs between the servers of a node, for the parts that they share.

/// A server's routes and the exceptions among them.
pub(crate) struct Surface {
    /// Method and path of every route.
    pub(crate) routes: &'static [(&'static str, &'static str)],
    /// What most paths begin with; callers like to leave it out.
    pub(crate) prefix: &'static str,
    /// Path of the description.
    pub(crate) description: &'static str,
    /// Paths that are answered without a key.
    pub(crate) without_key: &'static [&'static str],
    /// Paths that are still answered once the server was told to stop.
    pub(crate) while_stopping: &'static [&'static str],
}
