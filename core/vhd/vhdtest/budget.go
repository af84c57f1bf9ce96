package vhdtest

// Slow tells that the race detector is on, which makes everything ten times as
// slow: tests try a sample of what they try else.
const Slow = slowness > 1

// Budget is how many different states a test looks at, on all kinds together,
// if nobody says: what two CPUs do in about five seconds.
const Budget = 150_000 / slowness
