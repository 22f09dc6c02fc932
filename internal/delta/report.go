package delta

import "github.com/runnel-fota/runnel/core/patch"

// Report says where a patch's bytes go.
type Report struct {
	Arch     string  `json:"arch"`              // whose instructions were predicted
	Runs     int     `json:"runs"`              // stretches of the old image
	Copied   int     `json:"run_bytes"`         // bytes of the new image that runs cover
	Inserted int     `json:"inserted_bytes"`    // and that they don't
	Literals int     `json:"literals"`          // of these, told byte by byte
	Cost     Cost    `json:"patch_bytes_by"`    // bytes of the patch
	Kinds    [4]Kind `json:"runs_by"`           // runs, by what was predicted
	Updates  int     `json:"counter_updates"`   // that the applier does
	Packed   []Asset `json:"compressed_assets"` // files inside the image that are compressed and changed
}

// Cost is how many bytes of the patch each part takes; they add up to its size but for
// some bytes of the coder's ends.
type Cost struct {
	Preamble float64 `json:"preamble"` // what the images are, and the map
	Control  float64 `json:"control"`  // where runs lie and how long they are
	Flags    float64 `json:"flags"`    // that bytes are as predicted, or not
	Misses   float64 `json:"misses"`   // what they are where not
	Literals float64 `json:"literals"`
	Copies   float64 `json:"copies"` // in insertions
	Restarts float64 `json:"restarts"`
}

// Kind is what runs took, by what was predicted.
type Kind struct {
	Name   string  `json:"kind"`
	Bytes  int     `json:"bytes"`
	Moved  int     `json:"moved"`  // of those, predicted otherwise than they were
	Misses int     `json:"misses"` // predicted wrongly
	Cost   float64 `json:"patch_bytes"`
}

// Asset is a file inside the new image.
type Asset struct {
	Kind   string `json:"kind"`
	Offset int    `json:"offset"`
	Bytes  int    `json:"bytes"`
}

var kindNames = [4]string{"nothing", "pointers", "calls", "literals"}

// flag books the decision whether a byte of a run is as predicted.
func (r *Report) flag(kind int, moved, miss bool, spent float64) {
	k := &r.Kinds[kind]
	k.Bytes++
	if moved {
		k.Moved++
	}
	if miss {
		k.Misses++
	}
	r.Cost.Flags += spent / 8
}

// symbol books what a symbol took; of a byte of a run, kind is how it was predicted, else
// it is negative, and flags what of it was booked already.
func (r *Report) symbol(sym patch.Symbol, kind int, spent, flags float64) {
	b := spent / 8
	c := &r.Cost
	switch sym {
	case patch.SymPreamble:
		c.Preamble += b
	case patch.SymRun, patch.SymInsert, patch.SymSource:
		c.Control += b
	case patch.SymByte:
		if kind < 0 {
			c.Literals += b
			r.Literals++
			break
		}
		c.Misses += b - flags/8
		r.Kinds[kind].Cost += b
	case patch.SymRestart:
		c.Restarts += b
	default:
		c.Copies += b
	}
}

// report is the best variant's.
func (m *maker) report() Report {
	r := m.best.report
	r.Arch = archNames[m.best.applier.Arch()]
	for i := range r.Kinds {
		r.Kinds[i].Name = kindNames[i]
	}
	for _, o := range m.best.plan {
		if o.run > 0 {
			r.Runs++
		}
		r.Copied += o.run
		r.Inserted += o.n
	}
	r.Cost.Preamble += 2
	r.Cost.Restarts += float64(m.best.restarts * (patch.LinkSize + 4))
	r.Packed = changedAssets(m.old, m.new)
	return r
}

var archNames = map[patch.Arch]string{patch.ArchNone: "none", patch.ArchXtensa: "xtensa", patch.ArchRISCV: "riscv", patch.ArchThumb: "thumb"}
