//! Owns the iroh endpoint, connections and streams. Decides nothing about membership.
