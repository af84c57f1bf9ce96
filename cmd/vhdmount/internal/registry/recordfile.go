package registry

import "unicode/utf8"

// recordFile is an entry as its file has it. JSON keeps no bytes that aren't
// UTF-8, which a path may have: such a path is in Raw, by the name of its field.
type recordFile struct {
	Entry
	Raw map[string][]byte `json:"raw,omitempty"`
}

func newRecordFile(e Entry) recordFile {
	r := recordFile{Entry: e}
	for name, path := range r.paths() {
		if !utf8.ValidString(*path) {
			if r.Raw == nil {
				r.Raw = map[string][]byte{}
			}
			r.Raw[name] = []byte(*path)
		}
	}
	return r
}

// entry is the entry with its paths as they were.
func (r *recordFile) entry() Entry {
	for name, path := range r.paths() {
		if raw, ok := r.Raw[name]; ok {
			*path = string(raw)
		}
	}
	return r.Entry
}

// paths are the fields that hold one.
func (r *recordFile) paths() map[string]*string {
	return map[string]*string{"image": &r.Image, "disk": &r.Disk, "mountpoint": &r.Mountpoint, "log": &r.Log}
}
