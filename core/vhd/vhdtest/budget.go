package vhdtest

// Budget is how many different states a test looks at, on all kinds together,
// if nobody says: what two CPUs do in about twenty seconds. The race detector
// makes everything slower by ten times.
const Budget = 150_000 / slowness
