"""Common English words that the tokenizer's merges are learnt from, beside the captions of the motion world."""

WORDS = """
a about above across after again against all almost along already also always among an and another any anything are
around as at away back bad be beautiful because become been before began behind being below beside best better between
big both bottom bring brought but by call came can carry certain change close closed cold come could cover dark day
deep did different do does done door down draw drop dry during each early earth easy either else empty end enough even
every everything eye face fall family far fast father feel few field fill find fine fire first fish floor flower
follow food foot for form forward found four free friend from front full game garden gave get give glass go goes gold
gone good grass great ground group grow had hair half hand happy hard has have he head hear heart heavy held help her
here high hill him his hold hole home hot hour house how huge hundred ice idea if important inside into is island it
its jump just keep kept kind king knee know lake land large last late laugh lay lead leaf leave left leg less let
letter life light like line list little live long look lost loud love low machine made make man many map mark may me
mean metal middle might mile milk mind minute mirror modern moment money month moon more morning most mother mountain
mouth move movie much music must my name near neck need nest never new next nice no nobody noise north nose not note
nothing now number ocean of off often old once one only open or other our out outside over own page paint pair paper
park part party pass past path people person photo picture piece place plain plane plant play please point pool poor
portrait pretty pull push put queen quick quiet quite rabbit race rainy ran reach read ready real rest rich ride right
river road rock roof room rope rose round row sad safe said sail same sand sat saw say school sea season seat second
see seem seen sell send set seven several shade shadow shape sharp she ship shirt shoe shop short should show side
sign silver since sing sister sit six size skin sleep slow small smile smoke smooth so soft some something song soon
sound south space special speed spin spring square stand start state stay step still stone stop storm story straight
strange street strong style such suddenly summer sun sure sweet swim table tail take talk tall team tell ten than
thank that the their them then there these they thick thin thing think third this those though three through throw
time tiny to today together told tomorrow too took top touch toward town toy train travel tree trip true try turn two
under until up upon us use usual valley very video view village voice wait wake walk wall want warm was wash watch
water wave way we wear weather week well went were west wet what wheel when where which while who whole whose why wide
wild will wind window wing winter wish with without wolf wonder wood word work world would write year yes yesterday
yet you young your zoo bright cinematic detailed drawing flat simple cartoon animation animated clip frame motion
panda monkey duck goose penguin whale shark dolphin dragon dinosaur knight princess wizard pirate skier surfer dancer
skating skiing surfing dancing jumping swimming climbing spinning riding driving sleeping eating playing standing
sitting turning rising falling
""".split()  # noqa: SIM905 (a list of one word a line would hide them)
