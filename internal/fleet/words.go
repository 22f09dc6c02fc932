package fleet

import (
	"context"
	"strings"
	"time"
)

// ValidateWords checks a release's channel and notes.
func ValidateWords(channel, notes string) error {
	if channel != "" {
		if err := validTag("channel", channel); err != nil {
			return err
		}
	}
	if len(notes) > MaxNotes {
		return Errorf(CodeInvalid, "notes have %d bytes, at most %d are allowed", len(notes), MaxNotes)
	}
	for line := range strings.SplitSeq(notes, "\n") {
		if CleanText(line, MaxNotes) != strings.Join(strings.Fields(line), " ") {
			return Errorf(CodeInvalid, "notes have a character that can't be printed")
		}
	}
	return nil
}

// MaxNotes of a release, bytes: what is longer belongs where it can be linked to.
const MaxNotes = 2048

// Words are what people say of a release; nil leaves what is.
type Words struct{ Notes, Channel *string }

// Publication is what who publishes a release says of it beside what it is.
type Publication struct {
	Draft          bool // it is taken in and checked, and published by another word (Drafts.PublishDraft)
	Notes, Channel string
}

// Of is the release with that said.
func (p Publication) Of(r Release) Release {
	if r.Notes, r.Channel = p.Notes, p.Channel; p.Draft {
		r.State = ReleaseDraft
	}
	return r
}

// Drafts is what people say of a release once it is taken in.
type Drafts interface {
	// PublishDraft publishes a draft with all its builds, as new as one that is pushed now, and
	// answers the one of that id. One that is published already is left; CodeConflict: it is withdrawn.
	PublishDraft(ctx context.Context, id int64, now time.Time) (Release, error)
	// SetWords changes what people say of a release with all its builds.
	SetWords(ctx context.Context, id int64, w Words, now time.Time) (Release, error)
}

// Names of events of releases, beside those of the wires.
const (
	EventDrafted = "release_drafted" // it was taken in, and waits to be published
	EventNoted   = "release_noted"   // its notes or channel changed
)
