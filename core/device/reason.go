package device

import "github.com/runnel-fota/runnel/core/state"

// Reason is why something failed or was refused. Its text goes into reports, so
// the server shows it.
type Reason uint8

const (
	ReasonNone          Reason = iota
	ReasonTooLarge             // the image does not fit the target slot
	ReasonChunkSize            // chunks larger than the buffer, or of size 0
	ReasonEmpty                // an image of no bytes
	ReasonBadImage             // found bad before
	ReasonGaveUp               // staged as often as allowed
	ReasonOlder                // older than the release in progress, which is kept
	ReasonChunkMAC             // wrong MAC, too often
	ReasonChunkNumber          // wrong number
	ReasonChunkLength          // wrong length
	ReasonChunkAnswer          // the answer is not a chunk
	ReasonFlashErase           // the target could not be erased
	ReasonFlashProgram         // the target could not be programmed
	ReasonFlashRead            // the target reads back other bytes, or not at all
	ReasonDigest               // the image in flash is not the one announced
	ReasonImage                // the image in flash is none that the bootloader takes
	ReasonNotBootable          // the chip refuses it
	ReasonBootRecord           // the boot record could not be written
	ReasonState                // the state could not be written
	ReasonCrashed              // panic or watchdog during the trial
	ReasonNotVerified          // did not verify at boot
	ReasonSelfTest             // its self-test failed
	ReasonBootsSpent           // too many boots without a confirm
	ReasonUnproven             // the server was not reached in time
	ReasonOrdered              // an operator asked for the way back
	ReasonNoWayBack            // and there is none
	ReasonNoJournal            // no room for a journal: a cut starts over
	ReasonNoChain              // the chunk size does not fit the sectors: a cut starts over
	ReasonJournal              // the journal could not be written
	ReasonCancelled            // the operator withdrew it
	ReasonTriedHere            // it stands in the other slot and its record says that it went back
	ReasonDamaged              // what was in flash is not what the journal says
	ReasonElsewhere            // confirmed, but not by this updater
	ReasonNotAuthorized        // the server does not know this device or its key
	ReasonTrust                // no roots, or a trust store that can't be read
	ReasonKeyList              // the key list is not signed by the roots that the device holds
	ReasonManifest             // the manifest is malformed, or does not fit its announcement
	ReasonSignature            // too few good signatures
	ReasonProduct              // for another product
	ReasonHardware             // for other hardware
	ReasonEpoch                // of another epoch
	ReasonSequence             // not newer than what was confirmed
	ReasonSecurity             // security version below the floor
	ReasonSlot                 // for another slot or address
	ReasonRecord               // a record that is not the release's, too often
	ReasonStream               // no server or cache gave the part of the stream that was asked for
	ReasonSpent                // given up as often as flash is to bear; a newer release is needed
	ReasonSheet                // no sheet, or one that is malformed, not signed or another release's
	ReasonPatchMemory          // a derived stream that was made for more memory
	ReasonBase                 // a patch from another image than the one that runs
	ReasonPatch                // a derived stream that does not make the image
)

func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return ""
	case ReasonTooLarge:
		return "image larger than the target slot"
	case ReasonChunkSize:
		return "chunk size larger than the device's buffer"
	case ReasonEmpty:
		return "image without bytes"
	case ReasonBadImage:
		return "this image was found bad before; a retry must be ordered"
	case ReasonGaveUp:
		return "staged four times without a verdict; a retry must be ordered"
	case ReasonOlder:
		return "older than the release in progress, which is kept"
	case ReasonChunkMAC:
		return "chunk with a wrong MAC, too often"
	case ReasonChunkNumber:
		return "chunk with a wrong number, too often"
	case ReasonChunkLength:
		return "chunk of a wrong length, too often"
	case ReasonChunkAnswer:
		return "answer that is no chunk, too often"
	case ReasonFlashErase:
		return "flash: erase failed"
	case ReasonFlashProgram:
		return "flash: program failed"
	case ReasonFlashRead:
		return "flash: read back other bytes than were written"
	case ReasonDigest:
		return "SHA-256 of the image in flash is not the announced one"
	case ReasonImage:
		return "image in flash is refused by the image check"
	case ReasonNotBootable:
		return "the chip refuses to boot the image"
	case ReasonBootRecord:
		return "boot record could not be written"
	case ReasonState:
		return "state could not be written"
	case ReasonCrashed:
		return "new image crashed or hung during its trial"
	case ReasonNotVerified:
		return "new image did not verify at boot"
	case ReasonSelfTest:
		return "new image failed its self-test"
	case ReasonBootsSpent:
		return "new image was not confirmed within three boots"
	case ReasonUnproven:
		return "unproven: the server was not reached during the trial"
	case ReasonOrdered:
		return "rolled back as ordered"
	case ReasonNoWayBack:
		return "no way back: the other slot holds no whole image"
	case ReasonNoJournal:
		return "no room for a journal: a power cut starts the download over"
	case ReasonNoChain:
		return "chunk size does not fit flash sectors: a power cut starts the download over"
	case ReasonJournal:
		return "journal could not be written"
	case ReasonCancelled:
		return "release withdrawn"
	case ReasonTriedHere:
		return "this image was tried here and went back; a retry must be ordered"
	case ReasonDamaged:
		return "flash does not hold what the journal says"
	case ReasonElsewhere:
		return "confirmed by something else than the updater"
	case ReasonNotAuthorized:
		return "the server refuses this device or its key"
	case ReasonTrust:
		return "no trust store that can be read"
	case ReasonKeyList:
		return "key list that the device's roots do not stand for"
	case ReasonManifest:
		return "manifest that can't be read or does not fit its announcement"
	case ReasonSignature:
		return "manifest without enough good signatures"
	case ReasonProduct:
		return "release of another product"
	case ReasonHardware:
		return "release for other hardware"
	case ReasonEpoch:
		return "release of another epoch"
	case ReasonSequence:
		return "release not newer than the one confirmed"
	case ReasonSecurity:
		return "security version below the floor"
	case ReasonSlot:
		return "release for another slot"
	case ReasonRecord:
		return "record that is not the release's, too often"
	case ReasonStream:
		return "stream not served as it was asked for, too often"
	case ReasonSpent:
		return "begun and taken back too often; only a newer release is taken"
	case ReasonSheet:
		return "stream sheet that can't be read, is not signed or of another release: the full stream is taken"
	case ReasonPatchMemory:
		return "patch that wants more memory than there is: the full stream is taken"
	case ReasonBase:
		return "patch from another image than the one that runs: the full stream is taken"
	case ReasonPatch:
		return "patch that does not make the image: the full stream is taken"
	}
	return "unknown reason"
}

// outcomeReason is the text of a trial's end.
func outcomeReason(o state.Outcome) Reason {
	switch o {
	case state.OutcomeCrashed:
		return ReasonCrashed
	case state.OutcomeNotVerified:
		return ReasonNotVerified
	case state.OutcomeSelfTest:
		return ReasonSelfTest
	case state.OutcomeBootsSpent:
		return ReasonBootsSpent
	case state.OutcomeUnproven:
		return ReasonUnproven
	case state.OutcomeGaveUp:
		return ReasonGaveUp
	case state.OutcomeRevertedByOp:
		return ReasonOrdered
	case state.OutcomeConfirmedElsewhere:
		return ReasonElsewhere
	}
	return ReasonNone
}
