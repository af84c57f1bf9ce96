package tapdisk

import (
	"github.com/vhdmount/vhdmount/cmd/vhdmount/internal/tapctl"
	"github.com/vhdmount/vhdmount/frontend/blktap"
)

// sectorSize is the unit of the protocol's lengths, in bytes.
const sectorSize = 512

// diskStats is what STATS tells of a disk: the fields that a tapdisk has under
// the same names, and after them what the session counts by operation.
type diskStats struct {
	Name        string     `json:"name"`
	Sectors     [2]uint64  `json:"secs"` // read, written
	Images      []imageRef `json:"images"`
	Tap         tapStats   `json:"tap"`
	Outstanding uint64     `json:"reqs_outstanding"`
	Paused      bool       `json:"paused"`
	blktap.Stats
}

type imageRef struct {
	Name string `json:"name"`
}

type tapStats struct {
	Minor    int       `json:"minor"`
	Requests [2]uint64 `json:"reqs"` // taken, answered
}

// statsOf are the figures of a minor; without an open disk, zeros.
func statsOf(a *attachment) diskStats {
	out := diskStats{Images: []imageRef{}, Tap: tapStats{Minor: a.tap.Minor}}
	disk := a.open()
	if disk == nil {
		return out
	}
	s := disk.Stats()
	out.Name, out.Stats = disk.Name(), s
	out.Images = append(out.Images, imageRef{out.Name})
	out.Sectors = [2]uint64{s.Read.Bytes / sectorSize, s.Write.Bytes / sectorSize}
	for _, op := range []blktap.OpStats{s.Read, s.Write, s.Flush, s.Trim} {
		out.Outstanding += op.InFlight
		out.Tap.Requests[1] += op.Requests
	}
	out.Tap.Requests[0] = out.Tap.Requests[1] + out.Outstanding
	out.Paused = disk.State()&tapctl.StatePaused == tapctl.StatePaused
	return out
}
