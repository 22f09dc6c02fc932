package adminapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// native: keys of the native wire, and what a device may speak. No answer has a key.
func (s *server) native() {
	type nativeKeyInput struct {
		ID   string `path:"device" maxLength:"64"`
		Body struct {
			Key string `json:"native_key" maxLength:"64" doc:"one more secret for the native wire, 64 hex digits"`
		}
	}
	type nativeKeyOutput struct {
		Body struct {
			Device string `json:"device"`
			Number int    `json:"key_number" doc:"by which the device names it; those before live until it polls with this one"`
		}
	}
	huma.Register(s.api, op("add-native-key", "POST", "/devices/{device}/native-keys", "Give a device one more native key", status(http.StatusCreated)),
		func(ctx context.Context, in *nativeKeyInput) (*nativeKeyOutput, error) {
			key, err := parseKey("native_key", in.Body.Key)
			var n uint8
			if err == nil {
				n, err = s.Keyring.AddNativeKey(ctx, in.ID, key, s.Now())
			}
			if err != nil {
				return nil, s.fail(ctx, err)
			}
			o := &nativeKeyOutput{}
			o.Body.Device, o.Body.Number = in.ID, int(n)
			return o, nil
		})
	huma.Register(s.api, op("reset-wire", "POST", "/devices/{device}/reset-wire", "Let it speak a weaker wire than it did"), func(ctx context.Context, in *deviceInput) (*deviceOutput, error) {
		if err := s.Keyring.ResetWire(ctx, in.ID, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, in.ID)
	})
}

// EnrolToken is an enrolment token as the API shows it: never with its secret.
type EnrolToken struct {
	ID        string     `json:"id"`
	Product   string     `json:"product"`
	IDPattern string     `json:"id_pattern,omitempty" doc:"of device ids, with * and ?"`
	Count     int        `json:"count" doc:"of devices that it takes"`
	Used      int        `json:"used"`
	Approval  bool       `json:"approval" doc:"a person has to approve each device"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Warning   string     `json:"warning,omitempty"`
}

const sharedTokenWarning = "several devices share it: whoever has it can compute the keys of the others from a recording, so it is taken over TLS only"

func enrolTokenOf(t fleet.EnrolToken) EnrolToken {
	o := EnrolToken{ID: t.ID, Product: t.Product, IDPattern: t.Pattern, Count: t.Count, Used: t.Used, Approval: t.Approval,
		CreatedAt: t.CreatedAt.UTC(), ExpiresAt: when(t.ExpiresAt), RevokedAt: when(t.RevokedAt)}
	if t.Shared() {
		o.Warning = sharedTokenWarning
	}
	return o
}

// Enrolment is a device that came with a token.
type Enrolment struct {
	Device   string    `json:"device"`
	Token    string    `json:"token"`
	Hardware string    `json:"hardware" doc:"as it says"`
	Status   string    `json:"status" enum:"waiting,approved,taken"`
	Time     time.Time `json:"time"`
}

func enrolmentOf(e fleet.Enrolment) Enrolment {
	return Enrolment{Device: e.Device, Token: e.Token, Hardware: e.Hardware, Status: string(e.Status), Time: e.Time.UTC()}
}

// enrolments: how devices become known by themselves.
func (s *server) enrolments() {
	type addEnrolTokenInput struct {
		Body struct {
			ID        string     `json:"id" maxLength:"32" doc:"public; printable, without spaces and colons"`
			Secret    string     `json:"secret" maxLength:"64" doc:"32 random bytes, 64 hex digits; kept sealed and never shown"`
			Product   string     `json:"product" maxLength:"64"`
			IDPattern string     `json:"id_pattern,omitempty" maxLength:"64" doc:"of device ids, with * and ?; any without"`
			Count     int        `json:"count,omitempty" minimum:"1" default:"1"`
			ExpiresAt *time.Time `json:"expires_at,omitempty"`
			Approval  bool       `json:"approval,omitempty"`
		}
	}
	type enrolTokenOutput struct{ Body EnrolToken }
	huma.Register(s.api, op("add-enrol-token", "POST", "/enrol-tokens", "Make an enrolment token", status(http.StatusCreated)), func(ctx context.Context, in *addEnrolTokenInput) (*enrolTokenOutput, error) {
		b := in.Body
		t := fleet.EnrolToken{ID: b.ID, Product: b.Product, Pattern: b.IDPattern, Count: b.Count, Approval: b.Approval}
		if b.ExpiresAt != nil {
			t.ExpiresAt = b.ExpiresAt.UTC()
		}
		secret, err := parseKey("secret", b.Secret)
		if err == nil {
			t, err = s.EnrolTokens.AddEnrolToken(ctx, t, secret, s.Now())
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &enrolTokenOutput{enrolTokenOf(t)}, nil
	})
	type enrolTokensOutput struct {
		Body struct {
			Tokens  []EnrolToken `json:"tokens"`
			Waiting []Enrolment  `json:"waiting" doc:"devices that wait for approval"`
		}
	}
	huma.Register(s.api, op("list-enrol-tokens", "GET", "/enrol-tokens", "All enrolment tokens, and the devices that wait for approval"), func(ctx context.Context, _ *empty) (*enrolTokensOutput, error) {
		tokens, err := s.EnrolTokens.ListEnrolTokens(ctx)
		var waiting []fleet.Enrolment
		if err == nil {
			waiting, err = s.EnrolTokens.WaitingEnrolments(ctx)
		}
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &enrolTokensOutput{}
		o.Body.Tokens, o.Body.Waiting = make([]EnrolToken, 0, len(tokens)), make([]Enrolment, 0, len(waiting))
		for _, t := range tokens {
			o.Body.Tokens = append(o.Body.Tokens, enrolTokenOf(t))
		}
		for _, e := range waiting {
			o.Body.Waiting = append(o.Body.Waiting, enrolmentOf(e))
		}
		return o, nil
	})
	type revokeEnrolTokenInput struct {
		ID string `path:"token" maxLength:"32"`
	}
	type revokeEnrolTokenOutput struct {
		Body struct {
			ID string `json:"id"`
		}
	}
	huma.Register(s.api, op("revoke-enrol-token", "POST", "/enrol-tokens/{token}/revoke", "Let no more devices in by it; those that are known stay"), func(ctx context.Context, in *revokeEnrolTokenInput) (*revokeEnrolTokenOutput, error) {
		if err := s.EnrolTokens.RevokeEnrolToken(ctx, in.ID, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &revokeEnrolTokenOutput{}
		o.Body.ID = in.ID
		return o, nil
	})
	type approveDeviceInput struct {
		ID   string `path:"device" maxLength:"64"`
		Body struct {
			Token string `json:"token,omitempty" maxLength:"32" doc:"by which it waits; needed where there are several"`
		}
	}
	type approveDeviceOutput struct{ Body Enrolment }
	approve := op("approve-device", "POST", "/devices/{device}/approve", "Let a device in that waits", func(o *huma.Operation) { o.Errors = append(o.Errors, 409) })
	huma.Register(s.api, approve, func(ctx context.Context, in *approveDeviceInput) (*approveDeviceOutput, error) {
		e, err := s.EnrolTokens.ApproveEnrolment(ctx, in.ID, in.Body.Token, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &approveDeviceOutput{enrolmentOf(e)}, nil
	})
}
