package patch

// Symbol is what an Encoder is asked for.
type Symbol uint8

const (
	SymPreamble Symbol = iota // the fields of the preamble, in their order
	SymRun                    // length of the next run
	SymInsert                 // length of the insertion behind it
	SymSource                 // where the run lies in the old image
	SymByte                   // the next byte of the new image
	SymToken                  // 1: a copy begins here
	SymOld                    // 1: the copy is from the old image
	SymFrom                   // where the copy lies, in its image
	SymLength                 // of the copy
	SymRestart                // 1: a restart point is here
)

// Encoder makes patches: the applier's own state machine codes, so that a patch can't
// be read otherwise than it was written. Want gives the value of the symbol that comes
// next; Bit takes its decisions, with the probability that the bit is 1, in 1..65535 of
// 65536; Restart, at a restart point, ends the coder, has the link written, and begins
// anew.
type Encoder interface {
	Want(s Symbol) uint32
	Bit(p, bit uint32)
	Restart(pos uint32)
}

// want is what comes next where an Encoder drives, else 0, which nobody looks at.
func (a *Applier) want(s Symbol) uint32 {
	if a.enc == nil {
		return 0
	}
	return a.enc.Want(s)
}
