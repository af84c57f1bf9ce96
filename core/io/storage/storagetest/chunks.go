package storagetest

// nearChunks is how many chunks, from the start of a file, are kept in a row:
// all that most files have.
const nearChunks = 32

// chunks are those of a file that are there, by number. The zero value has
// none.
type chunks struct {
	near []*chunk         // the first; nil where there is none
	far  map[int64]*chunk // from nearChunks on
}

// get is chunk k, nil if it is not there.
func (s *chunks) get(k int64) *chunk {
	if k < int64(len(s.near)) {
		return s.near[k]
	}
	return s.far[k]
}

// put makes c chunk k; nil takes it away.
func (s *chunks) put(k int64, c *chunk) {
	switch {
	case k >= nearChunks && c == nil:
		delete(s.far, k)
	case k >= nearChunks:
		if s.far == nil {
			s.far = map[int64]*chunk{}
		}
		s.far[k] = c
	case k < int64(len(s.near)):
		s.near[k] = c
	case c != nil:
		for int64(len(s.near)) < k {
			s.near = append(s.near, nil)
		}
		s.near = append(s.near, c)
	}
}

// all yields each chunk with its number, which may be taken away meanwhile.
func (s *chunks) all(yield func(k int64, c *chunk) bool) {
	for k, c := range s.near {
		if c != nil && !yield(int64(k), c) {
			return
		}
	}
	for k, c := range s.far {
		if !yield(k, c) {
			return
		}
	}
}
