/*
 * One turn of a spinning wait: tells the core that it spins, which saves power and lets the other
 * hardware thread of the core run.
 */
#pragma once

static inline void spin_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
