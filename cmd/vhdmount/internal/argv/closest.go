package argv

// Closest is the candidate that name was most likely meant to be: one that
// differs in a third of its letters at most. It reports false where there is
// none.
func Closest(name string, candidates []string) (string, bool) {
	best, found := "", false
	least := max(1, len(name)/3) + 1
	for _, c := range candidates {
		if d := distance(name, c); d < least {
			best, least, found = c, d, true
		}
	}
	return best, found
}

// distance is how many bytes must be put in, taken out, changed, or swapped
// with their neighbour to turn a into b.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := last[j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			row[j] = min(change, last[j]+1, row[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
