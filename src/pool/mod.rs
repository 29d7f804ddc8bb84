//! Server connections of one worker, who waits for them, and the limits that all workers share.
