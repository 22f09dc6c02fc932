package boot

// Error is why a boot record can't be read or written.
type Error uint8

const (
	ErrArea      Error = iota + 1 // the records' area is not two sectors, or its unit is too large
	ErrBuffer                     // a buffer is too short
	ErrSlot                       // there is no such slot, or it is the running one
	ErrNotActive                  // the record in force does not start the running slot
	ErrOnTrial                    // the running image is on trial: the fallback is the way back
	ErrReadBack                   // the record reads back wrong
)

func (e Error) Error() string {
	switch e {
	case ErrArea:
		return "boot: the records' area is unusable"
	case ErrBuffer:
		return "boot: buffer too short"
	case ErrSlot:
		return "boot: no such slot to change to"
	case ErrNotActive:
		return "boot: the record in force does not start the running slot"
	case ErrOnTrial:
		return "boot: the running image is on trial; confirm it first"
	case ErrReadBack:
		return "boot: record reads back wrong"
	}
	return "boot: unknown error"
}
