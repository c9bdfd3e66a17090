//! Owns the simulation of many nodes on a virtual clock and a virtual network.
