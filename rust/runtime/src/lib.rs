//! The only place with sockets, threads, timers and file input and output.
