package storagetest

import (
	"maps"
	"path"
	"slices"
	"time"
)

// replay is the record of a Crash played up to a point: for each file what is
// stable and what isn't yet.
type replay struct {
	point   int
	files   map[*inode]*replayFile // by the live file
	order   []*replayFile          // as they came to be
	names   map[string]*replayFile // stable
	pending []nameChange           // not stable yet
}

// nameChange is a Create, Rename, Link or Remove.
type nameChange struct {
	file     *replayFile // who gets the name added
	add, del string      // absolute; empty: none
}

func (n nameChange) in(dir string) bool {
	return n.add != "" && path.Dir(n.add) == dir || n.del != "" && path.Dir(n.del) == dir
}

// replayFile is a file of which part is not stable yet.
type replayFile struct {
	inode    *inode  // its id and mode
	name     string  // its first
	base     *sparse // stable; frozen
	baseSize int64   // bytes
	known    facts   // of base
	now      sparse  // as the program sees it
	sectors  map[int64][]version
	sizes    []sizeChange
	modTime  time.Time
}

// version is what a call left of a sector.
type version struct {
	point int
	data  *sector // nil: a hole
	sum   uint64  // of data
}

// sizeChange is what a call made of a file's size.
type sizeChange struct {
	point int
	size  int64 // bytes
	cuts  bool  // smaller than before
}

// newReplay begins with the files of base.
func newReplay(base map[string]stable) *replay {
	r := &replay{files: map[*inode]*replayFile{}, names: map[string]*replayFile{}}
	for _, name := range slices.Sorted(maps.Keys(base)) {
		was := base[name]
		f := r.files[was.live]
		if f == nil {
			f = r.add(was.live, name, was.data)
			f.baseSize, f.modTime = was.size, was.modTime
		}
		r.names[name] = f
	}
	return r
}

func (r *replay) add(ino *inode, name string, base *sparse) *replayFile {
	f := &replayFile{inode: ino, name: name, base: base, now: over(base), sectors: map[int64][]version{}}
	r.files[ino] = f
	r.order = append(r.order, f)
	return f
}

// play applies the next call.
func (r *replay) play(c *call) {
	r.point++
	switch c.kind {
	case callCreate:
		f := r.add(c.ino, c.name, &sparse{})
		f.modTime = c.at
		r.pending = append(r.pending, nameChange{file: f, add: absolute(c.name)})
	case callRename:
		r.pending = append(r.pending, nameChange{file: r.files[c.ino], add: absolute(c.newname), del: absolute(c.name)})
	case callLink:
		r.pending = append(r.pending, nameChange{file: r.files[c.ino], add: absolute(c.newname)})
	case callRemove:
		r.pending = append(r.pending, nameChange{del: absolute(c.name)})
	case callSyncDir:
		r.syncDir(absolute(c.name))
	default:
		r.files[c.ino].play(c, r.point)
	}
}

// syncDir makes the changes in dir stable, and those before them.
func (r *replay) syncDir(dir string) {
	done := 0
	for i, n := range r.pending {
		if n.in(dir) {
			done = i + 1
		}
	}
	apply(r.names, r.pending[:done])
	r.pending = slices.Clone(r.pending[done:])
}

// apply makes the changes to names.
func apply(names map[string]*replayFile, changes []nameChange) {
	for _, n := range changes {
		if n.del != "" {
			delete(names, n.del)
		}
		if n.add != "" {
			names[n.add] = n.file
		}
	}
}

// play applies a call that concerns the file's content.
func (f *replayFile) play(c *call, point int) {
	switch c.kind {
	case callWrite:
		f.modTime = c.at
		f.write(c.data, c.off, point)
	case callTruncate:
		f.modTime = c.at
		f.resize(c.n, point)
	case callAllocate:
		f.modTime = c.at
		if c.n > 0 {
			f.resize(max(f.size(), c.off+c.n), point)
		}
	case callPunch:
		f.modTime = c.at
		f.punch(c.off, c.n, point)
	case callSync:
		f.base, f.baseSize, f.known = f.now.frozen(), f.size(), facts{}
		f.now, f.sectors, f.sizes = over(f.base), map[int64][]version{}, nil
	case callDrop:
		f.drop()
	}
}

// size is the size that the program sees.
func (f *replayFile) size() int64 {
	if len(f.sizes) > 0 {
		return f.sizes[len(f.sizes)-1].size
	}
	return f.baseSize
}

func (f *replayFile) resize(size int64, point int) {
	if was := f.size(); size != was {
		f.sizes = append(f.sizes, sizeChange{point: point, size: size, cuts: size < was})
		if size < was {
			f.now.cut(size)
		}
	}
}

func (f *replayFile) write(p []byte, off int64, point int) {
	f.now.writeAt(p, off)
	pieces(off, int64(len(p)), func(i int64, _, _ int) { f.version(i, point) })
	if len(p) > 0 {
		f.resize(max(f.size(), off+int64(len(p))), point)
	}
}

// punch writes zeros to what isn't a hole: elsewhere it changes nothing.
func (f *replayFile) punch(off, n int64, point int) {
	n = min(n, roundUp(f.size())-off)
	pieces(off, n, func(i int64, from, to int) {
		if f.now.at(i) != nil {
			f.now.zero(i*sectorSize+int64(from), int64(to-from))
			f.version(i, point)
		}
	})
}

// version notes what the sector is now.
func (f *replayFile) version(i int64, point int) {
	data := f.now.share(i)
	f.sectors[i] = append(f.sectors[i], version{point: point, data: data, sum: sumSector(i, data)})
}

// drop makes the program see what is stable, at the size that it has. What was
// written stays possible: the sync failed somewhere on the way.
func (f *replayFile) drop() {
	f.now = over(f.base)
	f.now.cut(f.baseSize)
	for _, s := range f.sizes {
		if s.cuts {
			f.now.cut(s.size)
		}
	}
}
