"""What people do in the demo. The wild captions name actions that the shipped estimator was not trained on."""

LAB = (
    "a person walks forward",
    "a person walks slowly in a circle",
    "a person stands still",
    "a person stands and looks around",
    "a person walks forward and stops",
    "a person walks and turns around",
    "someone walks in a straight line",
    "a person stands and moves the arms a little",
)

WILD = {
    "dance": (
        "a person dances ballet and does a pirouette",
        "a dancer moves the arms expressively",
        "a person dances salsa steps with turns",
        "someone dances and spins on one leg",
        "a dancer leaps and lifts one leg high",
        "a person dances with big arm movements",
    ),
    "gymnastics": (
        "a person does a cartwheel",
        "someone does gymnastics and stretches the legs wide",
        "a person bends down and touches the floor",
        "a gymnast balances on one leg with arms raised",
        "a person crouches and stands up again",
    ),
    "martial arts": (
        "a person kicks and punches",
        "someone practises karate",
        "a martial artist does a high kick",
        "a person boxes and ducks",
        "a person performs tai chi",
    ),
    "sports": (
        "a person jumps forward with both feet",
        "a person throws a ball",
        "someone climbs using hands and feet",
        "a person runs and leaps over an obstacle",
        "a person swings a golf club",
        "a person jumps up and down doing jumping jacks",
    ),
}
