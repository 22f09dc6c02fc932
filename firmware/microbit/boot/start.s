// The boot stage's vectors, and everything that runs as an interrupt. The vectors
// stay in force while an image runs: a Cortex-M0 has no register that moves them.
// Images poll; what they are interrupted by is served here.
.syntax unified
.cpu cortex-m0
.thumb

.section .isr_vector, "a", %progbits
    .long _stack_top
    .long Reset_Handler
    .long Fault             // NMI
    .long Fault             // HardFault
    .rept 12
    .long Fault
    .endr
    .rept 10                // IRQ 0 to 9
    .long Fault
    .endr
    .long Guard             // IRQ 10, TIMER2
    .rept 21                // IRQ 11 to 31
    .long Fault
    .endr

// HANDOVER: the last 32 bytes of RAM (firmware/nrf51/handover.go).
.equ HANDOVER, 0x20003FE0
.equ PANIC,    0x50414E49
.equ WATCHDOG, 0x57444F47

// Any fault, and a panic of a Go program, which is an undefined instruction. The
// stack may be what is broken, so none is used.
.section .text.Fault
.global Fault
.thumb_func
Fault:
    ldr r0, =PANIC
Leave:
    ldr r1, =HANDOVER
    str r0, [r1]
    ldr r1, =0xE000ED0C     // AIRCR
    ldr r0, =0x05FA0004     // SYSRESETREQ
    str r0, [r1]
    dsb
1:  b 1b

// Every 2 s. In the fourth without Feed the image is taken for stuck.
.section .text.Guard
.global Guard
.thumb_func
Guard:
    ldr r1, =0x4000A140     // TIMER2, EVENTS_COMPARE0
    movs r0, #0
    str r0, [r1]
    ldr r1, =HANDOVER
    ldr r0, [r1, #8]
    adds r0, #1
    str r0, [r1, #8]
    cmp r0, #4
    blo 2f
    ldr r0, =WATCHDOG
    ldr r1, =Leave + 1
    bx r1
2:  bx lr

// void run_image(stack, entry): there is no way back.
.section .text.run_image
.global run_image
.thumb_func
run_image:
    msr msp, r0
    bx r1

// The runtime's last word, when main returns: nothing may.
.section .text.SemihostingCall
.global SemihostingCall
.thumb_func
SemihostingCall:
    b Fault
