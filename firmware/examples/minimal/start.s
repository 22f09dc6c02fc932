// The header of the image (docs/format/raw-image.md) in front of TinyGo's entry.
.syntax unified
.section .isr_vector, "a", %progbits
.global image_header
image_header:
    .ascii "RNLI"
    .byte 1, 32, 0, 0
    .long 0, image_header, Reset_Handler, _stack_top, 0xFFFFFFFF, 0

.section .text.SemihostingCall
.global SemihostingCall
.thumb_func
SemihostingCall: // main returned, or a fault: as a panic
    udf #0
